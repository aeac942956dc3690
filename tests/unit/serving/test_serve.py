"""What `twofold serve` says of an endpoint that does not start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

from serving.app import DEPLOYMENT_NAME
from serving.serve import (
    ServeCommandSettings,
    _ready_line,
    _run,
    _wants_haproxy,
    _why_not_started,
    main,
)

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


def says(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    deployments = {DEPLOYMENT_NAME: SimpleNamespace(message=message)}
    applications = {"twofold": SimpleNamespace(deployments=deployments)}
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications=applications))


def test_the_replicas_own_error_is_told_and_not_serves(monkeypatch: pytest.MonkeyPatch):
    says(monkeypatch, AS_SERVE_TELLS_IT)
    expected = "encoder.errors.SpaceMismatchError: one line that says why"
    assert _why_not_started(SERVES_ERROR) == expected


def test_of_an_error_of_several_lines_the_first_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    says(monkeypatch, OF_SEVERAL_LINES)
    expected = "torch.AcceleratorError: CUDA error: device busy CUDA kernel errors might be"
    assert _why_not_started(SERVES_ERROR).startswith(expected)


@pytest.mark.parametrize("message", ["", "Upscaling from 1 to 2 replicas.", '  File "x", line 1'])
def test_where_no_replica_says_anything_serves_error_is_told(
    monkeypatch: pytest.MonkeyPatch, message: str
):
    says(monkeypatch, message)
    assert _why_not_started(SERVES_ERROR) == f"RuntimeError: {SERVES_ERROR}"


def test_where_serve_does_not_answer_its_first_error_is_told(monkeypatch: pytest.MonkeyPatch):
    def gone() -> None:
        raise ConnectionError("no cluster")

    monkeypatch.setattr(serve, "status", gone)
    assert _why_not_started(SERVES_ERROR) == f"RuntimeError: {SERVES_ERROR}"


@pytest.mark.parametrize(
    ("ingress", "is_there", "through_haproxy"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("haproxy", True, True),
        ("python", True, False),
        ("python", False, False),
    ],
)
def test_without_an_haproxy_the_ingress_is_the_plain_one_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, ingress: str, is_there: bool, through_haproxy: bool
):
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH", raising=False)
    monkeypatch.setattr("serving.serve.has_haproxy", lambda environment: is_there)
    settings = ServeCommandSettings(ingress=ingress)  # type: ignore[arg-type]
    assert _wants_haproxy(settings) is through_haproxy


@pytest.mark.parametrize("ingress", ["auto", "haproxy"])
def test_an_haproxy_that_was_asked_for_and_is_not_there_is_one_line_before_ray_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ingress: str
):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/nowhere/haproxy")
    monkeypatch.setattr("ray.init", None)
    assert main(["--ingress", ingress]) == 5
    assert capsys.readouterr().err.startswith(
        "twofold: error: expected an HAProxy for --ingress haproxy or RAY_SERVE_HAPROXY_BINARY_PATH"
    )


def test_haproxys_files_are_the_operators_where_he_says_so_and_else_in_a_folder_of_our_own(
    monkeypatch: pytest.MonkeyPatch,
):
    class ReachedError(Exception):
        pass

    def reached(settings: object) -> None:
        raise ReachedError

    socket, config = "RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"
    environment = {socket: "/run/mine/admin.sock"}
    monkeypatch.setattr("serving.serve.os.environ", environment)
    monkeypatch.setattr("serving.serve._check_here", reached)
    monkeypatch.setattr("serving.serve.parse_settings", lambda kind, *_, **__: kind(model="any"))
    with pytest.raises(ReachedError):
        _run([])

    assert environment[socket] == "/run/mine/admin.sock"
    assert not environment[config].startswith("/tmp/haproxy-serve")
    assert not Path(environment[config]).parent.exists(), "left behind"


@pytest.mark.parametrize(
    ("given", "is_told"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "10.0.0.7"}, True),
        ({"host": "some.name"}, True),
        ({"ray_address": "auto"}, True),
        ({"host": "0.0.0.0", "api_keys": ("key",)}, False),
    ],
)
def test_the_ready_line_says_where_other_machines_need_no_key(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], is_told: bool
):
    monkeypatch.setattr("serving.serve._ingress_found", lambda settings: "through HAProxy")
    line = _ready_line(ServeCommandSettings(**given))
    assert ("whoever reaches this address is answered" in line) is is_told
    assert line.endswith("\n")
    assert line.count("\n") == 1
