"""What is passed on of what Serve says: why nothing starts, what is waited for, what is ill."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from ray import serve

from encoder.errors import InvalidInputError, TwofoldError
from serving import deploy as module
from serving.app import DEPLOYMENT_NAME
from serving.deploy import StatusWatch, deploy, while_ray_is_up, withdraw
from serving.errors import ServeError, exit_code
from serving.settings import ServingSettings

SERVES_ERROR = RuntimeError(
    "Deploying application twofold failed: Failed to update the deployments ['QueryEndpoint']."
)
AS_SERVE_TELLS_IT = """The deployment failed to start 3 times in a row. [...] Error:
\x1b[36mray::ServeReplica:twofold:QueryEndpoint.initialize_and_get_metadata()\x1b[39m (pid=1)
    await self._replica_impl.initialize(deployment_config, rank, gang_context)
RuntimeError: Traceback (most recent call last):
  File "/app/serving/endpoint.py", line 53, in __init__
    check_corpus(settings.corpus, encoder)
encoder.errors.SpaceMismatchError: one line that says why
"""


OF_SEVERAL_LINES = """The deployment failed to start 3 times in a row. [...] Error:
RuntimeError: Traceback (most recent call last):
  File "/app/encoder/backends/torch_backend.py", line 80, in __init__
    self._model = model.to(device)
                  ^^^^^^^^^^^^^^^^
torch.AcceleratorError: CUDA error: device busy
CUDA kernel errors might be reported at some other API call.

Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""


def says(
    monkeypatch: pytest.MonkeyPatch, message: str | None, status: str = "DEPLOY_FAILED"
) -> None:
    """Let Serve say so of the deployment; None is of an application that has none yet."""
    deployment = SimpleNamespace(message=message)
    deployments = {} if message is None else {DEPLOYMENT_NAME: deployment}
    application = SimpleNamespace(deployments=deployments, status=SimpleNamespace(value=status))
    overview = SimpleNamespace(applications={"twofold": application})
    monkeypatch.setattr(serve, "status", lambda: overview)


def start(
    monkeypatch: pytest.MonkeyPatch, error: Exception = SERVES_ERROR, *, is_ours: bool = True
) -> None:
    """Deploy where Serve fails."""

    def run(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(serve, "start", lambda **_: None)
    monkeypatch.setattr(serve, "run", run)
    monkeypatch.setattr(module, "build_app", lambda _: None)
    settings = ServingSettings(model="org/x", num_cpus_per_replica=1)
    deploy(settings, StatusWatch(), host="127.0.0.1", port=8000, is_ours=is_ours)


def why_not_started(monkeypatch: pytest.MonkeyPatch, error: Exception = SERVES_ERROR) -> str:
    with pytest.raises(TwofoldError) as raised:
        start(monkeypatch, error)
    return str(raised.value).removeprefix("expected the endpoint to start, found ")


def test_the_replicas_own_error_is_told_and_not_serves(monkeypatch: pytest.MonkeyPatch):
    says(monkeypatch, AS_SERVE_TELLS_IT)
    expected = "encoder.errors.SpaceMismatchError: one line that says why"
    assert why_not_started(monkeypatch) == expected


def test_of_an_error_of_several_lines_the_first_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    says(monkeypatch, OF_SEVERAL_LINES)
    expected = "torch.AcceleratorError: CUDA error: device busy CUDA kernel errors might be"
    assert why_not_started(monkeypatch).startswith(expected)


@pytest.mark.parametrize("message", ["", "Upscaling from 1 to 2 replicas.", '  File "x", line 1'])
def test_where_no_replica_says_anything_serves_error_is_told(
    monkeypatch: pytest.MonkeyPatch, message: str
):
    says(monkeypatch, message)
    assert why_not_started(monkeypatch) == f"RuntimeError: {SERVES_ERROR}"


def test_of_an_ingress_that_does_not_start_its_own_error_is_told(monkeypatch: pytest.MonkeyPatch):
    frames = '  File "/ray/serve/haproxy.py", line 1, in start\n    await start()\n' * 40
    error = RuntimeError(f"ray::HAProxyManager.ready() (pid=1)\n{frames}RuntimeError: cannot bind")
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={}))
    assert why_not_started(monkeypatch, error) == "RuntimeError: cannot bind"


def test_where_serve_does_not_answer_its_first_error_is_told(monkeypatch: pytest.MonkeyPatch):
    def gone() -> None:
        raise ConnectionError("no cluster")

    monkeypatch.setattr(serve, "status", gone)
    assert why_not_started(monkeypatch) == f"RuntimeError: {SERVES_ERROR}"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("encoder.errors.SpaceMismatchError: other vectors", 3),
        ("encoder.errors.ModelLoadError: device cuda needs ...", 4),
        ("encoder.errors.BackendError: the device is lost", 4),
        ("encoder.errors.InvalidInputError: no such corpus", 2),
        ("torch.AcceleratorError: CUDA error", 5),
    ],
)
def test_what_a_replica_raises_ends_the_command_with_its_own_code(
    monkeypatch: pytest.MonkeyPatch, said: str, code: int
):
    says(monkeypatch, AS_SERVE_TELLS_IT.replace(AS_SERVE_TELLS_IT.splitlines()[-1], said))
    with pytest.raises(TwofoldError) as raised:
        start(monkeypatch)
    assert exit_code(raised.value) == code


def test_an_application_that_cannot_be_built_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch):
    def build_app(_: ServingSettings) -> None:
        raise InvalidInputError("served_model_name: expected ...")

    monkeypatch.setattr(serve, "start", lambda **_: None)
    monkeypatch.setattr(module, "build_app", build_app)
    with pytest.raises(InvalidInputError, match=r"^served_model_name"):
        deploy(ServingSettings(model="org/x"), StatusWatch(), host="", port=1, is_ours=True)


@pytest.mark.parametrize(("is_ours", "nodes"), [(True, "HeadOnly"), (False, "EveryNode")])
def test_it_listens_where_it_was_told_to(
    monkeypatch: pytest.MonkeyPatch, is_ours: bool, nodes: str
):
    told: dict[str, object] = {}
    monkeypatch.setattr(serve, "start", lambda **options: told.update(options))
    monkeypatch.setattr(serve, "run", lambda *_, **options: told.update(options))
    monkeypatch.setattr(module, "build_app", lambda _: None)
    settings = ServingSettings(model="org/x", num_cpus_per_replica=1)
    deploy(settings, StatusWatch(), host="10.0.0.1", port=8123, is_ours=is_ours)
    assert told == {
        "http_options": {"host": "10.0.0.1", "port": 8123},
        "proxy_location": nodes,
        "name": "twofold",
        "route_prefix": "/",
    }


def test_where_no_node_has_room_that_is_an_error_here_and_a_warning_on_a_cluster(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "alive_nodes", lambda: [{"CPU": 0.0}])
    says(monkeypatch, "")
    room = "expected room for 1 replicas of 1 CPUs and 0 GPUs, found 0 CPUs and 0 GPUs; "
    with pytest.raises(ServeError, match=f"^{room}lower"):
        start(monkeypatch)
    with pytest.raises(ServeError, match="the endpoint to start"):
        start(monkeypatch, is_ours=False)
    assert caplog.messages == [f"{room}waiting for nodes to join"]


def test_each_change_of_status_is_told_once_with_what_the_deployment_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    watch = StatusWatch()
    for status, message in [
        ("DEPLOYING", None),
        ("DEPLOYING", ""),
        ("RUNNING", "Upscaling from 1 to 2 replicas."),
        ("UNHEALTHY", "A replica's health\ncheck failed."),
        ("UNHEALTHY", "A replica's health\ncheck failed."),
        ("DEPLOYING", AS_SERVE_TELLS_IT),
        ("RUNNING", ""),
        ("RUNNING", "Downscaling."),
    ]:
        says(monkeypatch, message, status)
        watch.look()

    assert [message.removeprefix("the application is ") for message in caplog.messages] == [
        "UNHEALTHY: A replica's health check failed.",
        "DEPLOYING: encoder.errors.SpaceMismatchError: one line that says why",
        "RUNNING",
    ]


@pytest.mark.parametrize("status", ["DEPLOY_FAILED", "DELETING", "NOT_STARTED", "nothing"])
def test_an_application_that_is_gone_ends_the_command(monkeypatch: pytest.MonkeyPatch, status: str):
    says(monkeypatch, "", status)
    if status == "nothing":
        monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={}))
    with pytest.raises(ServeError, match=f"to run, found {status}"):
        StatusWatch().look()


def test_while_serve_is_waited_for_its_status_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "WATCH_INTERVAL_S", 0.001)
    says(monkeypatch, "1 replicas have taken more than 30s to be scheduled.", "DEPLOYING")
    with StatusWatch().looking():
        deadline = time.monotonic() + 20
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.001)
    assert caplog.messages == [
        "the application is DEPLOYING: 1 replicas have taken more than 30s to be scheduled."
    ]


def test_a_second_signal_while_requests_end_is_not_kept_waiting(monkeypatch: pytest.MonkeyPatch):
    def delete(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "delete", delete)
    monkeypatch.setattr(serve, "shutdown", lambda: pytest.fail("it waits for the controller"))
    with pytest.raises(KeyboardInterrupt):
        withdraw(is_ours=True)


RAY_ENDS = """
import signal, socket, time
from serving import deploy

signal.signal(signal.SIGINT, signal.default_int_handler)  # of a shell's background job: ignored
deploy._RAY_WATCH_INTERVAL_S = 0.01
ray = socket.create_server(("127.0.0.1", 0))
address = f"127.0.0.1:{ray.getsockname()[1]}"
with deploy.while_ray_is_up(address):
    time.sleep(0.1)
print("nothing happens while it is up")
try:
    with deploy.while_ray_is_up(address):
        ray.close()
        time.sleep(60)
except deploy.ServeError as error:
    print(error)
"""


def test_where_ray_ends_while_requests_end_nobody_waits_for_it():
    # In a process of its own: only a main thread is interrupted.
    run = subprocess.run([sys.executable, "-c", RAY_ENDS], capture_output=True, text=True)
    said = run.stdout.splitlines()
    assert said[0] == "nothing happens while it is up", run.stderr
    assert "found that it has ended; send the signal to this process alone" in said[1]


def test_while_ray_is_up_an_interrupt_is_the_users():
    with socket.create_server(("127.0.0.1", 0)) as ray:
        address = f"127.0.0.1:{ray.getsockname()[1]}"
        with pytest.raises(KeyboardInterrupt), while_ray_is_up(address):
            raise KeyboardInterrupt


def test_requests_that_do_not_end_in_time_are_told_and_serve_ends(monkeypatch: pytest.MonkeyPatch):
    def delete(name: str) -> None:
        raise TimeoutError

    ended = []
    monkeypatch.setattr(serve, "delete", delete)
    monkeypatch.setattr(serve, "shutdown", lambda: ended.append("here"))
    assert not withdraw(is_ours=True)
    assert ended == ["here"]
    assert not withdraw(is_ours=False)
    assert ended == ["here"]
