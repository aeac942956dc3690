"""What an operator sees of a running endpoint: headers, metrics, log lines, ports, docs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

from encoder.space import Pooling, Role
from serving.app import build_app
from serving.metrics import BUCKETS_S
from serving.settings import ServingSettings
from support.endpoints import Endpoint
from support.listeners import Listener, listeners
from support.metric_names import METRIC_NAMES

pytestmark = pytest.mark.integration

PATH = "/v1/embeddings"
PATIENCE_S = 30
OF_A_REPLICA = {
    "twofold_loop_busy_seconds_total",
    "twofold_offered_tokens_total",
    "twofold_padding_waste_ratio",
    "twofold_queued_tokens",
    "twofold_tokens_per_second",
}
ALWAYS_THERE = sorted(set(METRIC_NAMES) - {"twofold_cached_inputs_total"})
"""Not what only an endpoint counts that keeps vectors; test_mixed_load has one."""
ANYWHERE = {"0.0.0.0", "::"}


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=endpoint.url, timeout=PATIENCE_S) as client:
        yield client


# --- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_every_answer_says_how_its_vectors_were_made(client, direct_encoder, role):
    answer = client.post(PATH, json={"input": ["a", "b"], "input_type": role.value})

    assert answer.headers["x-embedding-role"] == role.value
    assert answer.headers["x-embedding-space"] == direct_encoder.space.fingerprint
    for stage in ("tokenize", "queue", "forward"):
        assert float(answer.headers[f"x-{stage}-ms"]) >= 0
    assert float(answer.headers["x-forward-ms"]) > 0
    assert answer.headers["x-truncated-count"] == "0"
    assert "x-truncated-inputs" not in answer.headers


def test_fewer_dimensions_are_another_space(client):
    whole = client.post(PATH, json={"input": "a"})
    part = client.post(PATH, json={"input": "a", "dimensions": 64})
    assert part.headers["x-embedding-space"] != whole.headers["x-embedding-space"]


def test_cut_inputs_are_named(client):
    answer = client.post(PATH, json={"input": ["a", "b " * 2000, "c", "d " * 2000]})

    assert answer.headers["x-truncated-count"] == "2"
    assert answer.headers["x-truncated-inputs"] == "1,3"
    assert [item["truncated"] for item in answer.json()["data"]] == [False, True, False, True]
    assert [item["n_tokens"] for item in answer.json()["data"]][1] == 256


def test_a_request_has_one_id_which_is_the_clients_where_it_gave_one(client):
    given = client.post(PATH, json={"input": "a"}, headers={"x-request-id": "mine-7"})
    ours = client.post(PATH, json={"input": "a"})

    assert given.headers.get_list("x-request-id") == ["mine-7"]
    [made] = ours.headers.get_list("x-request-id")
    assert len(made) >= 16
    wrong = client.post(PATH, json={}, headers={"x-request-id": "mine-8"})
    assert wrong.headers.get_list("x-request-id") == ["mine-8"]


# --- metrics --------------------------------------------------------------------------------------


def rows(endpoint: Endpoint) -> list[tuple[str, str, float]]:
    """Return name, labels and value of every sample of ours that Ray's exporter has."""
    text = httpx.get(f"http://127.0.0.1:{endpoint.metrics_port}/metrics", timeout=10).text
    found = re.findall(r"^(ray_twofold_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    return [(name, labels, float(value)) for name, labels, value in found]


def samples(endpoint: Endpoint) -> dict[str, list[str]]:
    """Return the labels of every sample, by its name."""
    found: dict[str, list[str]] = {}
    for name, labels, _ in rows(endpoint):
        found.setdefault(name, []).append(labels)
    return found


def exported(name: str) -> str:
    """Return a sample's name of a metric: histograms have three, one of which counts."""
    return f"ray_{name}_count" if name.endswith("_seconds") and "per" not in name else f"ray_{name}"


@pytest.fixture(scope="module")
def sampled(endpoint: Endpoint, client: httpx.Client) -> dict[str, list[str]]:
    """The samples after a request of each role, a cut input and a refusal."""
    for role in Role:
        client.post(PATH, json={"input": ["a", "b " * 2000], "input_type": role.value})
        client.post(PATH, json={"input": ["a"] * 3000, "input_type": role.value})
    deadline = time.monotonic() + PATIENCE_S
    while not are_complete(found := samples(endpoint)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def are_complete(found: dict[str, list[str]]) -> bool:
    """Whether every metric is there; those of a request, which come later, of both roles."""
    if not {exported(name) for name in ALWAYS_THERE} <= set(found):
        return False
    per_request = set(ALWAYS_THERE) - OF_A_REPLICA
    return all(
        any(f'role="{role.value}"' in labels for labels in found[exported(name)])
        for name in per_request
        for role in Role
    )


@pytest.mark.parametrize("name", ALWAYS_THERE)
def test_rays_exporter_has_every_metric(sampled, name):
    assert exported(name) in sampled, sorted(sampled)


@pytest.mark.parametrize("role", [role.value for role in Role])
@pytest.mark.parametrize("name", sorted(set(ALWAYS_THERE) - OF_A_REPLICA))
def test_what_counts_requests_is_labelled_by_role(sampled, name, role):
    assert any(f'role="{role}"' in labels for labels in sampled[exported(name)])


@pytest.mark.parametrize("role", [role.value for role in Role])
def test_a_histogram_ends_with_all_that_it_counted(endpoint, sampled, role):
    """On /metrics as Prometheus reads it: from some bucket to the last no fewer, and then all."""
    ours = [row for row in rows(endpoint) if f'"{role}"' in row[1]]
    buckets = {
        float(bound.replace("+Inf", "inf")): value
        for name, labels, value in ours
        if name == "ray_twofold_queue_seconds_bucket"
        for bound in re.findall(r'\ble="([^"]+)"', labels)
    }
    totals = [buckets[bound] for bound in sorted(buckets)]
    assert len(totals) == len(BUCKETS_S) + 1
    assert totals == sorted(totals)
    counts = [value for name, _, value in ours if name == "ray_twofold_queue_seconds_count"]
    assert counts == totals[-1:]
    assert totals[-1] > 0


def test_refusals_say_why(sampled):
    reasons = sampled["ray_twofold_rejected_total"]
    assert any('reason="too_large"' in labels for labels in reasons), reasons


# --- the log --------------------------------------------------------------------------------------


def session_folder(endpoint: Endpoint) -> Path:
    """Return the folder of the endpoint's Ray session, which Ray's own processes are told."""
    commands = " ".join(endpoint.running.descendants().values())
    found = re.search(r"(/\S+/session_[\w-]+)/", commands)
    assert found, commands
    return Path(found.group(1))


def access_lines(endpoint: Endpoint, request_id: str) -> list[dict[str, object]]:
    """Return what the replicas' access logs say of a request."""
    return [
        json.loads(line)
        for file in session_folder(endpoint).glob("logs/serve/access_*QueryEndpoint*.log")
        for line in file.read_text().splitlines()
        if request_id in line
    ]


def test_every_request_has_one_line_of_json_in_the_replicas_access_log(endpoint, client):
    client.post(
        PATH, json={"input": ["a", "b " * 2000]}, headers={"x-request-id": "logged-as-this"}
    )

    deadline = time.monotonic() + PATIENCE_S
    while not (lines := access_lines(endpoint, "logged-as-this")) and time.monotonic() < deadline:
        time.sleep(0.2)

    [line] = lines
    expected = {"method": "POST", "path": PATH, "status": 200, "dialect": "openai", "inputs": 2}
    expected |= {"role": "query", "truncated": 1, "request_id": "logged-as-this"}
    assert {name: line[name] for name in expected} == expected
    assert all(line[f"{stage}_ms"] >= 0 for stage in ("tokenize", "queue", "forward", "serialize"))


def test_a_refused_request_is_logged_with_what_was_said(endpoint, client):
    said = client.post(PATH, json={"input": 7}, headers={"x-request-id": "refused-as-this"})

    deadline = time.monotonic() + PATIENCE_S
    while not (lines := access_lines(endpoint, "refused-as-this")) and time.monotonic() < deadline:
        time.sleep(0.2)

    [line] = lines
    assert (line["status"], line["error"]) == (400, said.json()["error"]["message"])


# --- what the command says, and where it listens --------------------------------------------------


def test_the_ready_line_says_which_ingress_was_found(endpoint):
    [line] = [line for line in endpoint.running.stderr.splitlines() if "ready on" in line]
    assert line.startswith(f"twofold: ready on {endpoint.url} (through HAProxy); ")
    assert f"model {endpoint.model}" in line


def test_haproxy_listens_on_the_address_given_and_its_own_two_ports(endpoint):
    found = listeners(_processes(endpoint, "haproxy"))

    assert Listener("127.0.0.1", urlsplit(endpoint.url).port) in found
    others = {each for each in found if each.port != urlsplit(endpoint.url).port}
    assert len({each.port for each in others}) == 2, found
    assert {each.address for each in others} <= ANYWHERE


def test_replicas_and_serves_own_proxy_take_requests_from_this_machine_only(endpoint, client):
    """Their other ports are Ray's, which its own settings decide."""
    processes = _processes(endpoint, "ray::ServeReplica", "ray::ProxyActor")
    assert processes
    answering = [
        each
        for each in listeners(processes)
        if _speaks_http(f"http://127.0.0.1:{each.port}/-/healthz")
    ]
    assert answering, "a replica's own port answers HAProxy's health checks"
    assert {each.address for each in answering} == {"127.0.0.1"}


def _processes(endpoint: Endpoint, *words: str) -> set[int]:
    found = endpoint.running.descendants()
    return {pid for pid, command in found.items() if any(word in command for word in words)}


def _speaks_http(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code in (200, 503)
    except httpx.HTTPError:
        return False


# --- docs, and the settings of a Serve config -----------------------------------------------------


def test_the_docs_and_the_schema_are_there(client):
    assert client.get("/docs").status_code == 200
    schema = client.get("/openapi.json").json()
    paths = {"/v1/embeddings", "/v2/embed", "/embed", "/", "/info", "/v1/models"}
    assert paths | {"/health/live", "/health/ready"} <= set(schema["paths"])


def test_live_and_ready_are_apart(client, direct_encoder):
    assert client.get("/health/live").json() == {"status": "live"}
    ready = client.get("/health/ready").json()
    assert ready == {"status": "ready", "embedding_space": direct_encoder.space.fingerprint}


def test_the_args_of_a_serve_config_stand_flat_and_reach_the_replicas(minilm):
    """As `serve run serving.app:build_app model=... max_replicas=3` and `args:` give them."""
    args = {
        "model": minilm,
        "query_pooling": "mean",
        "max_queued_tokens": "1000",
        "max_replicas": "3",
        "corpus": "s3://bucket/vectors",
    }

    app = call_user_app_builder_with_args_if_necessary(build_app, args)

    deployment = app._bound_deployment
    [settings, _] = deployment.init_args
    assert isinstance(settings, ServingSettings)
    assert settings.encoder.query_pooling is Pooling.MEAN
    assert (settings.limits.max_queued_tokens, settings.corpus) == (1000, "s3://bucket/vectors")
    autoscaling = deployment._deployment_config.autoscaling_config
    assert (autoscaling.min_replicas, autoscaling.max_replicas) == (1, 3)
