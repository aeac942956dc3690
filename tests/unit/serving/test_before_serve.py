"""What a replica refuses before Serve, and what it keeps from it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import before_serve
from support.replica_app import V1, App, refusal, run_scenario


class Served:
    """Stands for Serve: remembers what reaches it, and passes it on below its route prefix."""

    def __init__(self, app: App, prefix: str) -> None:
        self.app = app
        self.prefix = prefix
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        scope["root_path"] = scope.get("root_path", "") + self.prefix
        await self.app.asgi(scope, receive, send)


def client_of(served: ASGIApp, **headers: str) -> httpx.AsyncClient:
    """Return a client of what Ray makes of Serve's application."""
    (middleware,) = before_serve.middlewares()
    asgi = middleware.cls(served, *middleware.args, **middleware.kwargs)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=asgi), base_url="http://replica", headers=headers
    )


@asynccontextmanager
async def behind_it(
    app: App, prefix: str = "", **headers: str
) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    """Yield what stands for Serve, and a client of a replica that is full."""
    served = Served(app, prefix)
    async with client_of(served, **headers) as client:
        with app.held_up():
            working = asyncio.create_task(client.post(prefix + V1, json={"input": "a b c d e f"}))
            await app.a_forward_has_begun()
            served.scopes.clear()
            yield served, client
        assert (await working).status_code == 200


LARGE = {"input": "x" * 400}


def test_a_request_that_has_no_room_is_refused_before_serve_sees_it():
    async def scenario() -> None:
        app = App(max_queued_tokens=8)
        with before_serve.guarded_by(app.asgi.state.gate):
            async with behind_it(app) as (served, client):
                refused = await client.post(V1, json=LARGE)
                named = await client.post(V1, json=LARGE, headers={"x-request-id": "mine"})
                assert served.scopes == []
                small = asyncio.create_task(client.post(V1, json={"input": "a"}))
                health = await client.get("/health/ready")
                unknown = await client.post("/v1/completions", json=LARGE)
        assert "6 tokens wait and 8 may" in refusal(refused, 429, "rate_limit_error")
        assert int(refused.headers["retry-after"]) >= 1
        assert len(refused.headers["x-request-id"]) == 32
        assert named.headers["x-request-id"] == "mine"
        assert ((await small).status_code, health.status_code, unknown.status_code) == (
            200,
            200,
            404,
        )
        assert app.metrics.rejections == [("-", "overloaded")] * 2
        assert app.metrics.answers[:2] == [("-", "-", 429)] * 2

    run_scenario(scenario())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"input": "' + b"x" * 400 + b'"}', 429),
        (b'{"input": "b c d e f g h i j"}', 429),
        (b'{"input": ', 400),
        (b'{"input": "a", "model": "another"}', 404),
        (b'{"input": "a", "colour": "red"}', 400),
    ],
)
@pytest.mark.parametrize("is_before_serve", [True, False])
def test_a_refused_request_leaves_nothing_to_the_garbage_collector(
    body: bytes, status: int, is_before_serve: bool
):
    """Under overload a thousand a second would; each collection looks at all that are under way."""

    class Watched:
        """Of the request: it goes when the request does."""

    async def scenario() -> None:
        app = App(max_queued_tokens=8)
        statuses: list[int] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def refused() -> weakref.ref[Watched]:
            watched = Watched()
            headers = [(b"content-length", str(len(body)).encode())]
            scope = {"type": "http", "method": "POST", "path": V1, "headers": headers}
            scope["state"] = {"watched": watched}
            replica = before_serve.BeforeServe(app.asgi) if is_before_serve else app.asgi
            await replica(scope, receive, send)
            return weakref.ref(watched)

        with before_serve.guarded_by(app.asgi.state.gate):
            async with behind_it(app):
                assert (await refused())() is None
        assert statuses == [status]

    gc.disable()
    try:
        run_scenario(scenario())
    finally:
        gc.enable()


def test_a_request_without_a_key_is_401_however_full_the_replica_is_and_no_load():
    async def scenario() -> None:
        app = App(max_queued_tokens=8, api_keys=("right",))
        with before_serve.guarded_by(app.asgi.state.gate):
            async with behind_it(app, authorization="Bearer right") as (_, client):
                app.offered_tokens()
                for other in ("Bearer wrong", ""):
                    answer = await client.post(V1, json=LARGE, headers={"authorization": other})
                    refusal(answer, 401, "authentication_error")
                assert app.metrics.rejections == []
                assert app.offered_tokens() == 0
                refusal(await client.post(V1, json=LARGE), 429, "rate_limit_error")
                assert app.metrics.rejections == [("-", "overloaded")]
                assert app.offered_tokens() > 0

    run_scenario(scenario())


def test_below_a_route_prefix_a_request_is_refused_before_serve_just_the_same():
    async def scenario() -> None:
        app = App(max_queued_tokens=8)
        with before_serve.guarded_by(app.asgi.state.gate):
            async with behind_it(app, "/embeddings") as (served, client):
                refused = await client.post(f"/embeddings{V1}", json=LARGE)
                assert served.scopes == []
        refusal(refused, 429, "rate_limit_error")

    run_scenario(scenario())


def test_a_refused_body_that_turns_out_too_large_is_counted_as_it_is_answered():
    async def scenario() -> None:
        app = App(max_queued_tokens=8, max_body_bytes=1000)
        length = {"content-length": "900"}
        with before_serve.guarded_by(app.asgi.state.gate):
            async with behind_it(app) as (_, client):
                answer = await client.post(V1, content=b"x" * 1001, headers=length)
        assert "at most 1000 bytes, found 1001" in refusal(answer, 413)
        assert app.metrics.rejections == [("-", "too_large")]

    run_scenario(scenario())


def test_where_no_replica_is_or_is_no_more_everything_is_passed_on():
    async def scenario() -> None:
        app = App(max_queued_tokens=8)
        async with behind_it(app) as (served, client):
            refusal(await client.post(V1, json=LARGE), 429, "rate_limit_error")
            assert len(served.scopes) == 1
            with before_serve.guarded_by(app.asgi.state.gate):
                refusal(await client.post(V1, json=LARGE), 429, "rate_limit_error")
            assert len(served.scopes) == 1
            refusal(await client.post(V1, json=LARGE), 429, "rate_limit_error")
            assert len(served.scopes) == 2

    run_scenario(scenario())


def test_a_gate_is_asked_on_its_own_event_loop_alone():
    """Ray may run its server on another one than the application."""

    async def scenario() -> None:
        app = App(max_queued_tokens=8)

        async def of_another_loop() -> httpx.Response:
            async with client_of(PlainTextResponse("served")) as client:
                return await client.post(V1, json=LARGE)

        with before_serve.guarded_by(app.asgi.state.gate):
            async with behind_it(app) as (_, client):
                passed_on = await asyncio.to_thread(asyncio.run, of_another_loop())
                assert app.metrics.rejections == []
                refusal(await client.post(V1, json=LARGE), 429, "rate_limit_error")
        assert passed_on.text == "served"

    run_scenario(scenario())


@pytest.mark.parametrize("length", [None, "-1", "abc", "99999999999"])
def test_a_length_that_says_nothing_is_left_to_the_gate_behind_serve(length: str | None):
    async def scenario() -> None:
        app = App(max_queued_tokens=8)
        with before_serve.guarded_by(app.asgi.state.gate):
            async with behind_it(app) as (served, client):

                async def content() -> AsyncIterator[bytes]:
                    yield b'{"input": "' + b"x" * 400 + b'"}'

                headers = {} if length is None else {"content-length": length}
                answer = await client.post(V1, content=content(), headers=headers)
                assert answer.status_code in (413, 429)
                assert len(served.scopes) == 1

    run_scenario(scenario())


@pytest.mark.parametrize(
    ("name", "value", "reaches_serve"),
    [
        (b"x-request-id", b"an id", True),
        (b"x-request-id", b"\xff", False),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"traceparent", b"\xff", False),
        (b"tracestate", b"vendor=value", True),
        (b"tracestate", b"\xff", False),
        (b"x-request-timeout-seconds", b"0.0001", False),
        (b"x-request-disconnect-disabled", b"?1", False),
        (b"x-session-id", b"\xff", False),
        (b"x_session_id", b"mine", False),
        (b"serve_multiplexed_model_id", b"\xff", False),
        (b"serve-multiplexed-model-id", b"other", False),
        (b"authorization", b"\xff", True),
    ],
)
def test_serve_is_not_given_a_header_that_it_would_fail_over_or_obey(
    name: bytes, value: bytes, reaches_serve: bool
):
    seen: list[Any] = []

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["headers"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    headers = [(b"host", b"replica"), (name, value)]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(before_serve.BeforeServe(served)(scope, nothing, nothing))
    assert seen == [headers if reaches_serve else headers[:1]]


def test_every_header_that_serve_reads_is_known_here():
    """By Ray's own constants: a new one is noticed with the version that brings it."""
    from ray.serve._private import constants

    names = [name for name in vars(constants) if name.startswith("SERVE_HTTP_")]
    assert len(names) >= 3
    for name in [*names, "SERVE_SESSION_ID", "SERVE_MULTIPLEXED_MODEL_ID"]:
        header = getattr(constants, name).encode()
        assert not before_serve._is_for_serve(header, b"\xff"), header
