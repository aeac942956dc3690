"""What the manifests say is what runs: their commands, environment and configs on a local Ray.

Taken from the rendered overlays: the init container's command, the head's environment and start
parameters, the RayJob's entrypoint and runtime environment, the RayService's serveConfigV2. Changed
in them: where the model, the bucket and the temporary files are, ports, and CPUs and replicas that
this machine does not have.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

from encoder.corpus_files import read_corpus_space
from encoder.encoder import load_encoder
from encoder.settings import EncoderSettings
from serving.settings import LimitSettings
from support.manifests import cluster_spec, rendered, the
from support.ports import free_port
from support.processes import Running, run_module
from support.ray_nodes import RayNodes
from support.s3_store import S3Store

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TEXTS = {f"{n}": f"Document {n} is about {'this and ' * (n % 9)}that." for n in range(40)}
MODEL = "/models/noinstruct"
BUCKET = "s3://lake/"
PER_MACHINE = {"num_cpus_per_replica": 1, "min_replicas": 1, "max_replicas": 2}
BESIDE_PYTHON = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def job_and_service() -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        the("RayJob", rendered("embed-job/cpu")),
        the("RayService", rendered("query-service/cpu")),
    )


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


class Head(RayNodes):
    """The head node of the RayService, started as KubeRay starts it, on ports of its own."""

    def __init__(self, folder: Path, container: dict[str, Any], more: dict[str, str]) -> None:
        self.http_port, self.agent_port, self.metrics_port = (free_port() for _ in range(3))
        self.haproxy_port = free_port()
        # HAProxy's files have fixed names, and its socket's path must be short.
        haproxy = tempfile.mkdtemp(prefix="haproxy-", dir="/tmp")
        moved = {
            "HOME": str(folder),
            "PATH": BESIDE_PYTHON,
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(self.haproxy_port),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{haproxy}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{haproxy}/admin.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": haproxy,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{haproxy}/server-state",
            # Whom HAProxy asks while no replica is up: on a machine with another Serve that is the
            # other's, whose answers were seen here.
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_metrics_report_interval_ms": "1000",
        }
        super().__init__(folder, {**environment_of(container), **moved, **more})
        self._stack.callback(shutil.rmtree, haproxy, ignore_errors=True)

    def start(self, parameters: dict[str, str]) -> Running:
        ours = {
            **parameters,
            "num-cpus": "2",
            "dashboard-agent-listen-port": str(self.agent_port),
            "metrics-export-port": str(self.metrics_port),
        }
        return self._start(
            2,
            "--head",
            f"--port={self._port}",
            f"--ray-client-server-port={free_port()}",
            "--include-dashboard=true",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self._dashboard_port}",
            f"--temp-dir={self._temporary}",
            *(f"--{name}={value}" for name, value in ours.items()),
        )


@dataclass(frozen=True)
class Place:
    """Where on this machine is what the manifests place elsewhere."""

    model: Path
    bucket: str

    def adapt(self, text: str) -> str:
        assert MODEL in text
        return text.replace(MODEL, str(self.model)).replace(BUCKET, f"{self.bucket}/")


@pytest.fixture(scope="module")
def place(s3_store: S3Store, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The model where the init container's own command puts it, documents in a bucket."""
    job, _ = job_and_service()
    (init,) = cluster_spec(job)["headGroupSpec"]["template"]["spec"]["initContainers"]
    place = Place(tmp_path_factory.mktemp("models") / "noinstruct", s3_store.fresh_prefix())

    def pull(model: str) -> subprocess.CompletedProcess[str]:
        moved = {"TWOFOLD_MODEL": model, "TWOFOLD_TO": str(place.model), "PATH": BESIDE_PYTHON}
        command = [*init["command"], *init["args"]]
        environment = {**os.environ, **environment_of(init), **moved}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    first = pull(str(tiny_model))
    assert first.returncode == 0, first.stderr
    # The second pod's does not even ask: there is no such model.
    assert pull("no/such-model").returncode == 0
    rows = [{"id": name, "text": text} for name, text in TEXTS.items()]
    with fsspec.open(f"{place.bucket}/docs/a.parquet", "wb") as file:
        pq.write_table(pa.Table.from_pylist(rows), file)
    return place


@pytest.fixture(scope="module")
def head(s3_store: S3Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """One node with the environment of the service's head, which is that of its workers."""
    job, service = job_and_service()
    group = cluster_spec(service)["headGroupSpec"]
    (container,) = group["template"]["spec"]["containers"]
    (worker,) = cluster_spec(service)["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    (jobs,) = cluster_spec(job)["headGroupSpec"]["template"]["spec"]["containers"]
    assert worker["env"] == container["env"]
    assert environment_of(jobs).items() <= environment_of(container).items()
    assert container["envFrom"] == [{"secretRef": {"name": "twofold-s3"}}]
    secret = s3_store.address.environment()
    with Head(tmp_path_factory.mktemp("head"), container, secret) as head:
        head.start(group["rayStartParams"])
        yield head


@pytest.fixture(scope="module")
def embedded(head: Head, place: Place) -> str:
    """The output of the RayJob's entrypoint, submitted through a shell as KubeRay does it."""
    job, _ = job_and_service()
    entrypoint = place.adapt(job["spec"]["entrypoint"])
    entrypoint = entrypoint.replace("--num-cpus-per-actor 8", "--num-cpus-per-actor 1")
    runtime_env = json.dumps(yaml.safe_load(job["spec"].get("runtimeEnvYAML", "{}")))
    submit = f"ray job submit --runtime-env-json {shlex.quote(runtime_env)} -- {entrypoint}"
    deadline = time.monotonic() + 60
    while True:
        finished = subprocess.run(
            ["bash", "-ce", submit],
            env={
                **os.environ,
                **head.client_environment,
                "RAY_ADDRESS": head.job_address,
                "PATH": BESIDE_PYTHON,
            },
            capture_output=True,
            text=True,
            timeout=200,
        )
        output = finished.stdout + finished.stderr
        # The head is up before its job agent is.
        if "No available agent" not in output or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert finished.returncode == 0, output[-4000:]
    return f"{place.bucket}/vectors/"


@pytest.fixture(scope="module")
def url(head: Head, place: Place, embedded: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The endpoint that `serve deploy` makes of the RayService's serveConfigV2."""
    _, service = job_and_service()
    config = yaml.safe_load(place.adapt(service["spec"]["serveConfigV2"]))
    (application,) = config["applications"]
    assert application["args"]["corpus"] == embedded
    application["args"]["scaling"].update(PER_MACHINE)
    config["http_options"].update({"host": "127.0.0.1", "port": head.http_port})
    folder = tmp_path_factory.mktemp("serve")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    deployed = run_module(
        folder,
        "ray.serve.scripts",
        *("deploy", "config.yaml", "--address", head.job_address),
        environment=head.client_environment,
    )
    assert deployed.returncode == 0, deployed.stderr
    address = f"http://127.0.0.1:{head.http_port}"
    wait_until(lambda: get(f"{address}/health/ready"), timeout_s=120)
    return address


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def post(url: str, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read()), dict(response.headers.items())
    except urllib.error.HTTPError as error:
        with error:
            return json.loads(error.read()), dict(error.headers.items())


def wait_until(look, timeout_s: float):
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if found := look():
                return found
        except OSError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.5)


def test_a_job_waits_for_the_workers_of_a_cluster_that_begins_without_any(
    s3_store: S3Store, place: Place, tmp_path: Path
):
    # As the autoscaler's clusters do: head without CPUs, minReplicas 0.
    job, _ = job_and_service()
    group = cluster_spec(job)["headGroupSpec"]
    entrypoint = place.adapt(job["spec"]["entrypoint"]).replace("/vectors/", "/elastic/")
    command = entrypoint.replace("--num-cpus-per-actor 8", "--num-cpus-per-actor 2").split()
    environment = {**s3_store.address.environment(), "PATH": BESIDE_PYTHON}
    with RayNodes(tmp_path, environment) as nodes, ThreadPoolExecutor(1) as threads:
        nodes.start_head(num_cpus=int(group["rayStartParams"]["num-cpus"]))
        submitted = threads.submit(nodes.submit, *command)
        time.sleep(30)
        assert not submitted.done(), submitted.result()
        nodes.add_node(num_cpus=2)
        finished = submitted.result()
        assert finished.returncode == 0, finished.stdout[-4000:]
        # Nothing is new: it ends without any actor.
        again = nodes.submit(*command)
    assert "nothing to embed" in again.stdout


def test_the_job_writes_every_document_of_the_bucket(embedded: str, place: Place):
    filesystem, path = fsspec.core.url_to_fs(embedded.rstrip("/"))
    table = ds.dataset(f"{path}/data", filesystem=filesystem, format="parquet").to_table()
    assert sorted(table["id"].to_pylist()) == sorted(TEXTS)


def test_the_endpoint_answers_queries_in_the_space_of_the_jobs_corpus(url, embedded, place):
    text = "which document is about that?"
    answer, headers = post(f"{url}/v1/embeddings", {"model": "noinstruct", "input": text})
    assert "data" in answer, answer
    assert headers["x-embedding-space"] == read_corpus_space(embedded).fingerprint
    reference = load_encoder(
        EncoderSettings(model=str(place.model), backend="torch", dtype="float32")
    ).encode_queries([text])[0]
    found = np.asarray(answer["data"][0]["embedding"])
    assert float(found @ reference) >= 0.999


def test_kuberays_probes_find_what_they_look_for(url: str, head: Head):
    # Without the cluster's token: kubelet asks Ray's agent, and by way of wget HAProxy.
    assert get(f"http://127.0.0.1:{head.agent_port}/api/healthz")
    assert "success" in get(f"http://127.0.0.1:{head.agent_port}/api/local_raylet_healthz")
    assert "success" in get(f"{url}/-/healthz")


def test_rays_dashboard_wants_the_clusters_token(head: Head):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(f"{head.job_address}/api/jobs/")


def test_haproxy_takes_the_requests(url: str, head: Head):
    # Asked again for a while: Serve reloads HAProxy when a replica comes, and a reload begins at 0.
    def requests_counted() -> int:
        post(f"{url}/v1/embeddings", {"model": "noinstruct", "input": "hello"})
        seen = get(f"http://127.0.0.1:{head.haproxy_port}/metrics")
        counted = re.search(
            r'^haproxy_frontend_http_requests_total\{proxy="http_frontend"\} (\d+)',
            seen,
            re.MULTILINE,
        )
        assert counted, f"HAProxy counts no requests of its front end: {seen}"
        return int(counted[1])

    wait_until(lambda: requests_counted() > 0, timeout_s=30)


def test_every_metric_of_the_alerts_and_the_dashboard_is_exported(url: str, head: Head):
    long = "and so on " * 200
    post(f"{url}/v1/embeddings", {"model": "noinstruct", "input": long})
    too_many = ["a"] * (LimitSettings().max_inputs + 1)
    refused, _ = post(f"{url}/v1/embeddings", {"model": "noinstruct", "input": too_many})
    assert "error" in refused

    # Whatever was there once: Ray's exporter leaves a gauge out now and then.
    seen: set[str] = set()

    def missing() -> set[str]:
        exported = get(f"http://127.0.0.1:{head.metrics_port}/metrics")
        seen.update(re.findall(r"^# TYPE (\S+)", exported, re.MULTILINE))
        # A histogram of Ray's is one family, one of ours three.
        return {
            name
            for name in wanted_metrics()
            if not seen & {name, re.sub(r"_(bucket|count|sum)$", "", name)}
        }

    deadline = time.monotonic() + 60
    while (left := missing()) and time.monotonic() < deadline:
        time.sleep(1)
    assert left == set()


def wanted_metrics() -> set[str]:
    objects = rendered("monitoring")
    queries = [
        rule["expr"]
        for group in the("PrometheusRule", objects)["spec"]["groups"]
        for rule in group["rules"]
    ]
    dashboard = json.loads(the("ConfigMap", objects)["data"]["dashboard.json"])
    queries += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {
        name for query in queries for name in re.findall(r"\bray_(?:serve|twofold)_\w+", query)
    }
    assert len(names) > 10
    return names
