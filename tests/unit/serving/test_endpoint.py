"""One replica as Serve makes it, on a fake encoder and without Ray's metrics."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from starlette.responses import PlainTextResponse

from encoder.corpus_files import CORPUS_SPACE_FILE, PROBE_VECTORS_FILE
from encoder.errors import SpaceMismatchError
from encoder.probe_vectors import ProbeVectors
from encoder.space import Role
from serving import endpoint as module
from serving import metrics
from serving.access_log import AccessLog
from serving.before_serve import BeforeServe
from serving.corpus_check import check_corpus_space
from serving.embed_request import EmbedRequest
from serving.endpoint import QueryEndpoint
from serving.errors import OverloadedError, ServeError
from serving.settings import ServingSettings
from support.replica_app import NAME, V1, WIDE, WideEncoder, refusal, run_scenario


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> QueryEndpoint:
    monkeypatch.setattr(metrics, "metrics", MagicMock())
    monkeypatch.setattr(module, "load_encoder", lambda _: WideEncoder())
    monkeypatch.setattr(module, "_collect_garbage_seldom", lambda: None)  # for the tests after this
    return QueryEndpoint(ServingSettings(model=NAME), num_threads=1)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder that is as much of a corpus as an endpoint looks at, of the fake encoder's space."""
    made = ProbeVectors.of(WideEncoder())
    pinned = {"format": 1, "fingerprint": WIDE.fingerprint, "space": WIDE.to_dict()}
    (tmp_path / CORPUS_SPACE_FILE).write_text(json.dumps(pinned))
    (tmp_path / PROBE_VECTORS_FILE).write_text(made.to_json())
    return tmp_path


def replica_of(corpus: Path) -> QueryEndpoint:
    return QueryEndpoint(ServingSettings(model=NAME, corpus=str(corpus)), num_threads=1)


def test_a_replica_that_computes_what_its_corpus_holds_starts(
    endpoint: QueryEndpoint, corpus: Path, caplog: pytest.LogCaptureFixture
):
    replica_of(corpus)
    assert "whether this replica computes the same" not in caplog.text


def test_a_replica_that_computes_other_vectors_than_its_corpus_does_not_start(
    endpoint: QueryEndpoint, corpus: Path
):
    known = json.loads((corpus / PROBE_VECTORS_FILE).read_text())
    known["query"].reverse()
    (corpus / PROBE_VECTORS_FILE).write_text(json.dumps(known))
    with pytest.raises(
        SpaceMismatchError, match=f"other vectors .* wrote {corpus}/_probe.*as query"
    ):
        replica_of(corpus)


@pytest.mark.parametrize("has_probe_vectors", [True, False])
def test_a_replica_of_another_space_than_its_corpus_does_not_start(
    endpoint: QueryEndpoint, corpus: Path, has_probe_vectors: bool
):
    """On Kubernetes nothing else asks."""
    other = replace(WIDE, query=replace(WIDE.query, prompt="query: "))
    pinned = {"format": 1, "fingerprint": other.fingerprint, "space": other.to_dict()}
    (corpus / CORPUS_SPACE_FILE).write_text(json.dumps(pinned))
    if not has_probe_vectors:
        (corpus / PROBE_VECTORS_FILE).unlink()
    with pytest.raises(SpaceMismatchError, match=r"query: corpus .*query: .*Serve the model"):
        replica_of(corpus)


def test_a_replica_of_a_model_that_the_hub_has_moved_is_told_the_corpus_commit(
    endpoint: QueryEndpoint, corpus: Path, monkeypatch: pytest.MonkeyPatch
):
    other = replace(WIDE, tokenizer_sha256="d" * 64)
    pinned = json.loads((corpus / CORPUS_SPACE_FILE).read_text())
    pinned |= {"fingerprint": other.fingerprint, "space": other.to_dict()}
    pinned |= {"provenance": {"model": "org/x", "revision": "a" * 40}}
    (corpus / CORPUS_SPACE_FILE).write_text(json.dumps(pinned))
    with pytest.raises(SpaceMismatchError, match=r"tokenizer_sha256: corpus .*Serve the model"):
        check_corpus_space(str(corpus), WIDE, {"model": "org/x"})
    with pytest.raises(SpaceMismatchError, match=f"give --model org/x@{'a' * 40}"):
        check_corpus_space(str(corpus), WIDE, {"model": "org/x@v2", "revision": "b" * 40})
    with pytest.raises(SpaceMismatchError, match="Serve the model"):
        check_corpus_space(str(corpus), WIDE, {"model": "org/y", "revision": "b" * 40})


def test_a_replica_beside_a_corpus_without_probe_vectors_says_what_is_not_known(
    endpoint: QueryEndpoint, corpus: Path, caplog: pytest.LogCaptureFixture
):
    (corpus / PROBE_VECTORS_FILE).unlink()
    caplog.set_level(logging.WARNING, "ray.serve")
    replica_of(corpus)
    assert f"{corpus} has no {PROBE_VECTORS_FILE}" in caplog.text


def test_while_a_replica_runs_its_gate_is_asked_before_serve(endpoint: QueryEndpoint):
    async def scenario() -> None:
        app = endpoint.__serve_build_asgi_app__()

        def full(_: Any) -> None:
            raise OverloadedError("no room", retry_after_s=1)

        app.state.gate.check_early = full
        transport = httpx.ASGITransport(app=BeforeServe(PlainTextResponse("served")))
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            async with app.router.lifespan_context(app):
                refused = await client.post(V1, json={"input": "a"})
            afterwards = await client.post(V1, json={"input": "a"})
        assert "no room" in refusal(refused, 429, "rate_limit_error")
        assert afterwards.text == "served"

    run_scenario(scenario())


def test_a_replica_is_warm_when_it_starts_and_frees_its_model_when_it_stops(
    endpoint: QueryEndpoint, monkeypatch: pytest.MonkeyPatch
):
    closed: list[bool] = []
    monkeypatch.setattr(endpoint.service.encoder, "close", lambda: closed.append(True))

    async def scenario() -> None:
        app = endpoint.__serve_build_asgi_app__()
        async with app.router.lifespan_context(app):
            assert endpoint.service.encoder.forwards
            assert endpoint.service.load.tokens_per_s > 0
            assert closed == []
            await asyncio.wait_for(endpoint.check_health(), 10)
        assert closed == [True]

    run_scenario(scenario())


def test_serves_health_check_compares_a_vector_however_busy_the_replica_is(
    endpoint: QueryEndpoint,
):
    encoder, may_go_on = endpoint.service.encoder, threading.Event()

    async def scenario() -> None:
        app = endpoint.__serve_build_asgi_app__()
        async with app.router.lifespan_context(app):
            encoder.forwards.clear()
            encoder.on_forward = lambda: may_go_on.wait(20) and None
            working = asyncio.create_task(endpoint.service.embed(EmbedRequest(["a"], Role.QUERY)))
            while not encoder.forwards:  # noqa: ASYNC110 - in another thread
                await asyncio.sleep(0.001)
            checking = asyncio.create_task(endpoint.check_health())
            await asyncio.sleep(0.05)
            encoder.is_broken = True
            may_go_on.set()
            with pytest.raises(ServeError, match="a fixed text has cosine"):
                await asyncio.wait_for(checking, 10)
            await working

    run_scenario(scenario())


def test_lines_of_requests_are_written_when_a_replica_stops(
    endpoint: QueryEndpoint, capsys: pytest.CaptureFixture[str]
):
    async def scenario() -> None:
        app = endpoint.__serve_build_asgi_app__()
        transport = httpx.ASGITransport(app=app)
        client = httpx.AsyncClient(transport=transport, base_url="http://replica")
        async with client, app.router.lifespan_context(app):
            await client.post(V1, json={"input": "a"}, headers={"x-request-id": "the-last"})

    endpoint._access_log = AccessLog(logging.StreamHandler())
    run_scenario(scenario())

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["request_id"] == "the-last"


def test_what_hangs_in_a_cycle_does_not_stay(
    endpoint: QueryEndpoint, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_PUBLISH_INTERVAL_S", 0.004)

    class Body:
        def __init__(self) -> None:
            self.itself = self

    async def scenario() -> None:
        app = endpoint.__serve_build_asgi_app__()
        async with app.router.lifespan_context(app):
            body = Body()
            gone = weakref.ref(body)
            await asyncio.sleep(0.2)  # it is under way while others are cleaned up
            del body
            await asyncio.sleep(0.5)
            assert gone() is None

    automatic = gc.get_threshold()
    gc.set_threshold(0)
    try:
        run_scenario(scenario())
    finally:
        gc.set_threshold(*automatic)


def test_requests_are_not_logged_where_the_operator_does_not_want_it(endpoint: QueryEndpoint):
    assert endpoint._access_log is not None
    assert QueryEndpoint(ServingSettings(model=NAME, access_log=False), 1)._access_log is None


@pytest.mark.parametrize("keys", [(), ("key",)])
def test_a_replica_without_keys_says_that_it_answers_everybody(
    endpoint: QueryEndpoint, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
):
    said: list[str] = []
    monkeypatch.setattr(module._logger, "info", lambda line, *values: said.append(line % values))

    QueryEndpoint(ServingSettings(model=NAME, api_keys=keys), 1)

    assert any("TWOFOLD_API_KEYS" in line for line in said) is not bool(keys)
