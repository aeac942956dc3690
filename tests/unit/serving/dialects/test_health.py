"""Liveness and readiness, and what each of them waits for."""

from __future__ import annotations

import asyncio

import pytest

from support.replica_app import V1, WIDE, App, refusal, run_scenario


def test_liveness_needs_no_forward_and_readiness_runs_one():
    app = App()
    assert app.get("/health/live").json() == {"status": "live"}
    assert app.encoder.forwards == []

    ready = app.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "embedding_space": WIDE.fingerprint}
    assert app.encoder.forwards == [1]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health", "/query/health"])
def test_a_monitor_may_ask_for_the_head_alone(app: App, path: str):
    assert app.request("HEAD", path).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/query/health", "/document/health"])
def test_what_clients_of_text_embeddings_inference_ask_is_readiness(path: str):
    app = App()
    assert app.get(path).json() == app.get("/health/ready").json()
    assert app.encoder.forwards == [1, 1]
    assert app.access_lines() == []

    def broken() -> None:
        raise RuntimeError("device lost")

    app.encoder.on_forward = broken
    refusal(app.get(path), 503, "server_error")


def test_an_endpoint_whose_forward_raises_is_live_but_not_ready_until_it_is_mended():
    app = App()

    def broken() -> None:
        raise RuntimeError("device lost")

    app.encoder.on_forward = broken
    for _ in range(2):
        message = refusal(app.get("/health/ready"), 503, "server_error")
        assert "not ready" in message
        assert "device lost" in message
    message = refusal(app.post(V1, input="a"), 500, "server_error")
    assert "fails for every text" in message
    refusal(app.get("/health/ready"), 503, "server_error")
    assert app.request("HEAD", "/health/ready").status_code == 503
    for method in ("GET", "HEAD"):
        assert app.request(method, "/health/live").status_code == 200

    app.encoder.on_forward = lambda: None
    assert app.get("/health/ready").status_code == 200
    assert app.post(V1, input="a").status_code == 200


def test_readiness_waits_for_no_queue():
    async def scenario() -> None:
        app = App()
        async with app.client() as client:
            with app.held_up():
                working = asyncio.create_task(client.post(V1, json={"input": "a"}))
                await app.a_forward_has_begun()
                assert (await client.get("/health/ready")).status_code == 200
            assert (await working).status_code == 200

    run_scenario(scenario())


def test_a_forward_that_does_not_end_makes_the_endpoint_unready():
    async def scenario() -> None:
        app = App(request_timeout_s=0.05)
        async with app.client() as client:
            with app.held_up():
                await client.post(V1, json={"input": "a"})
                await asyncio.sleep(0.02)
                message = refusal(await client.get("/health/ready"), 503, "server_error")
                assert "a forward has not ended after 0.05 s" in message

    run_scenario(scenario())


def test_health_below_a_route_prefix_is_open_and_a_path_that_begins_like_it_is_not():
    app = App(api_keys=("secret",))
    for path, expected in (("/health/live", 200), ("/healthy", 401), ("/health-search", 401)):
        assert app.get(path).status_code == expected
