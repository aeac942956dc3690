"""Large answers go no faster than the client takes them, and are counted until it has."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import before_serve
from serving.response_sender import CLIENT_GONE, PART_BYTES, SMALL_BYTES, ResponseSender
from support.http_server import request, serving
from support.replica_app import V1, App, refusal, run_scenario

HEAD = {"type": "http.response.start", "status": 200, "headers": []}
INPUTS = 20_000
"""Their answer is larger than what the kernel keeps for a client that does not read (3 MB)."""
LARGE = json.dumps({"input": ["a"] * INPUTS})
ANSWER_BYTES = 4_000_000


def body_of(size: int) -> dict[str, Any]:
    return {"type": "http.response.body", "body": bytes(size)}


def sender(
    send: Callable[[Any], Any],
    *,
    holding: Callable[[int], Any] = lambda _: nullcontext(),
    timeout_s: float = 10.0,
    abort: Callable[[], None] | None = None,
) -> ResponseSender:
    return ResponseSender(send, None, holding, timeout_s, abort)


class Held:
    """What is held at present."""

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def __call__(self, size: int) -> Iterator[None]:
        self.bytes += size
        try:
            yield
        finally:
            self.bytes -= size


def test_a_small_answer_is_sent_as_it_came_and_counts_nothing():
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    def counted(_: int) -> Any:
        raise AssertionError

    async def scenario() -> None:
        respond, body = sender(send, holding=counted), body_of(SMALL_BYTES)
        await respond(HEAD)
        await respond(body)
        assert sent == [HEAD, body]
        assert sent[1] is body
        assert (respond.status, respond.has_started) == (200, True)

    run_scenario(scenario())


def test_a_large_answer_ends_with_a_message_of_its_own_and_is_counted_until_that_is_taken():
    held, sent = Held(), []

    async def send(message: Any) -> None:
        sent.append((message, held.bytes))

    async def scenario() -> None:
        respond, size = sender(send, holding=held), 2 * PART_BYTES + 7
        await respond(HEAD)
        await respond(body_of(size))
        parts = [message for message, _ in sent[1:]]
        assert [len(part["body"]) for part in parts] == [PART_BYTES, PART_BYTES, 7, 0]
        assert [part.get("more_body", False) for part in parts] == [True, True, True, False]
        assert [count for _, count in sent] == [size] * 5
        assert held.bytes == 0

    run_scenario(scenario())


def test_a_client_that_reads_slowly_but_goes_on_gets_its_whole_answer():
    taken = 0

    async def send(message: Any) -> None:
        nonlocal taken
        await asyncio.sleep(0.1)
        taken += len(message.get("body", b""))

    async def scenario() -> None:
        respond = sender(send, timeout_s=0.8)
        await respond(HEAD)
        await respond(body_of(15 * PART_BYTES))
        assert taken == 15 * PART_BYTES

    run_scenario(scenario())


@pytest.mark.parametrize("can_abort", [True, False])
def test_a_client_that_takes_nothing_more_loses_its_connection(can_abort: bool):
    held, is_aborted = Held(), asyncio.Event()

    async def send(message: Any) -> None:
        if message.get("body") == b"":
            await is_aborted.wait()

    async def scenario() -> None:
        abort = is_aborted.set if can_abort else None
        respond = sender(send, holding=held, timeout_s=0.05, abort=abort)
        await respond(HEAD)
        with pytest.raises(ClientDisconnect, match=r"bytes in 0\.05 s"):
            await respond(body_of(SMALL_BYTES + 1))
        assert is_aborted.is_set() == can_abort
        assert (held.bytes, respond.status) == (0, CLIENT_GONE)

    run_scenario(scenario())


def test_a_client_that_takes_each_part_just_in_time_has_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("serving.response_sender.LEAST_BYTES_PER_S", 100 * PART_BYTES)

    async def send(message: Any) -> None:
        await asyncio.sleep(0.15)

    async def scenario() -> None:
        respond = sender(send, timeout_s=0.3)
        await respond(HEAD)
        with pytest.raises(ClientDisconnect, match="too slowly"):
            await respond(body_of(10 * PART_BYTES))  # 1.5 s, of which 0.4 are given
        assert respond.status == CLIENT_GONE

    run_scenario(scenario())


def test_what_is_given_up_while_it_waits_for_the_client_is_held_no_more():
    """As Serve does when a client has gone away."""
    held, is_waiting = Held(), asyncio.Event()

    async def send(message: Any) -> None:
        if message.get("body"):
            is_waiting.set()
            await asyncio.Event().wait()

    async def scenario() -> None:
        respond = sender(send, holding=held)
        await respond(HEAD)
        sending = asyncio.create_task(respond(body_of(SMALL_BYTES + 1)))
        await is_waiting.wait()
        assert held.bytes == SMALL_BYTES + 1
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert (held.bytes, respond.status) == (0, CLIENT_GONE)

    run_scenario(scenario())


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_large_answer_arrives_whole_and_its_head_alone_where_that_is_asked_for(
    protocol: type, method: str
):
    body = bytes(range(256)) * 4000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(body)(scope, receive, sender(send))

    async def scenario() -> None:
        async with serving(app, protocol, []) as port, httpx.AsyncClient() as client:
            for _ in range(2):  # on one connection
                answer = await client.request(method, f"http://127.0.0.1:{port}/")
                assert answer.headers["content-length"] == str(len(body))
                assert answer.content == (body if method == "GET" else b"")

    run_scenario(scenario())


def replica(app: App) -> before_serve.BeforeServe:
    return before_serve.BeforeServe(app.asgi)


async def ask_without_reading(client: socket.socket, port: int) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    await asyncio.get_running_loop().sock_sendall(client, request(path=V1, body=LARGE))


async def read_to_the_end(client: socket.socket) -> int:
    """Return how many bytes came."""
    received = 0
    with suppress(ConnectionResetError):
        while part := await asyncio.get_running_loop().sock_recv(client, 2**16):
            received += len(part)
    return received


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.01)


def test_answers_that_nobody_reads_are_counted_and_others_refused_until_the_client_goes():
    async def scenario() -> None:
        app = App(max_inputs=INPUTS, max_buffered_bytes=8_000_000)
        unread = app.asgi.state.gate.unread
        with before_serve.guarded_by(app.asgi.state.gate):
            async with (
                serving(replica(app), HttpToolsProtocol, []) as port,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
            ):
                with socket.socket() as silent:
                    await ask_without_reading(silent, port)
                    await until(lambda: unread.held > ANSWER_BYTES)
                    refused = await client.post(V1, content=LARGE)
                    # However many bytes the other requests have.
                    small = await client.post(V1, json={"input": "a" * 3_900_000})
                    assert unread.held > ANSWER_BYTES
                await until(lambda: unread.held == 0)
                answered = await client.post(V1, content=LARGE)
        message = refusal(refused, 429, "rate_limit_error")
        assert "bytes of others are held, 8000000 may" in message
        assert refused.headers["retry-after"] == "1"
        assert app.metrics.rejections == [("query", "overloaded")]
        assert small.status_code == 200
        assert len(answered.json()["data"]) == INPUTS
        assert unread.held == 0

    run_scenario(scenario())


def test_a_client_that_never_reads_is_dropped_with_all_that_waits_for_it():
    async def scenario() -> None:
        app = App(max_inputs=INPUTS, body_timeout_s=0.5)
        unread = app.asgi.state.gate.unread
        with before_serve.guarded_by(app.asgi.state.gate), socket.socket() as client:
            # Which ends only once its connections have: what waits to be written is not waited for.
            async with serving(replica(app), HttpToolsProtocol, []) as port:
                await ask_without_reading(client, port)
                await until(lambda: unread.held > ANSWER_BYTES)
                await until(lambda: unread.held == 0)
            assert await read_to_the_end(client) < ANSWER_BYTES
        line = json.loads(app.access_lines()[-1])
        assert line["status"] == CLIENT_GONE
        assert line["error"].startswith("the client took its answer of ")

    run_scenario(scenario())


def test_an_answer_that_could_never_be_held_is_413_not_429():
    app = App(max_buffered_bytes=70_000)

    message = refusal(app.post(V1, input=["a"] * 1000), 413)

    assert "an answer of at most 70000 bytes" in message
    assert app.metrics.rejections == [("query", "too_large")]
    assert app.asgi.state.gate.unread.held == 0
