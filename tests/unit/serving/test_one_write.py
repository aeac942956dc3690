"""Responses of a real uvicorn, and how often it writes to a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import before_serve
from serving.one_write import in_one_write
from support.http_server import request, serving
from support.replica_app import V1, App, run_scenario

Answer = Callable[[Receive, Send], Awaitable[None]]
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]}
BODY = {"type": "http.response.body", "body": b"answer"}
LAST = "connection: close\r\n"


async def exchange(
    answer: Answer, sent: bytes, protocol: type = HttpToolsProtocol
) -> tuple[bytes, list[bytes]]:
    """Return what a client gets for what it sends at once, and what the server wrote."""
    written: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(receive, in_one_write(send))

    async with serving(app, protocol, written) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        got = await reader.read()
        writer.close()
    return got, written


async def plain(receive: Receive, send: Send) -> None:
    await send(HEAD)
    await asyncio.sleep(0)
    await send(BODY)


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])
def test_each_response_of_a_connection_is_one_write(protocol: type):
    async def scenario() -> None:
        # Sent at once: the second is parsed while the first is being answered.
        got, written = await exchange(plain, request() + request(LAST), protocol)
        assert b"".join(written) == got
        assert [part.endswith(b"\r\n\r\nanswer") for part in written] == [True, True]
        assert all(part.startswith(b"HTTP/1.1 200 ") for part in written)

    run_scenario(scenario())


def test_what_comes_behind_a_response_stays_behind_it():
    """h11 looks at the next request as soon as it is given the last of the body."""

    async def scenario() -> None:
        got, _ = await exchange(plain, request() + b"GAR BAGE\r\n\r\n", H11Protocol)
        assert got.startswith(b"HTTP/1.1 200 ")
        assert got.index(b"answer") < got.index(b"HTTP/1.1 400 ")

    run_scenario(scenario())


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])
def test_a_head_alone_is_sent_where_there_is_no_body(protocol: type):
    async def empty(receive: Receive, send: Send) -> None:
        await send({**HEAD, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def scenario() -> None:
        sent = request(method="HEAD", body="") + request(LAST, method="HEAD", body="")
        got, _ = await exchange(plain, sent, protocol)
        assert got.count(b"HTTP/1.1 200 ") == 2
        assert b"answer" not in got
        got, _ = await exchange(empty, request() + request(LAST), protocol)
        assert got.count(b"HTTP/1.1 200 ") == 2

    run_scenario(scenario())


def test_what_follows_the_first_part_of_a_body_is_written_as_it_comes():
    async def in_parts(receive: Receive, send: Send) -> None:
        await send(HEAD)
        for part in (b"an", b"sw", b"er"):
            await send({**BODY, "body": part, "more_body": part != b"er"})

    async def scenario() -> None:
        got, written = await exchange(in_parts, request(LAST))
        assert [part[-2:] for part in written] == [b"an", b"sw", b"er"]
        assert b"".join(written) == got

    run_scenario(scenario())


def test_a_head_whose_body_never_comes_is_sent_before_the_connection_is_closed():
    async def broken(receive: Receive, send: Send) -> None:
        await send(HEAD)
        raise RuntimeError

    async def scenario() -> None:
        got, _ = await exchange(broken, request())
        assert got.startswith(b"HTTP/1.1 200 ")

    run_scenario(scenario())


def test_an_application_that_raises_before_its_answer_is_a_500():
    async def broken(receive: Receive, send: Send) -> None:
        raise RuntimeError

    async def scenario() -> None:
        got, _ = await exchange(broken, request())
        assert got.startswith(b"HTTP/1.1 500 ")
        assert got.endswith(b"Internal Server Error")

    run_scenario(scenario())


def test_a_client_that_asks_before_it_sends_its_body_is_told_at_once():
    async def reading(receive: Receive, send: Send) -> None:
        await receive()
        await plain(receive, send)

    async def scenario() -> None:
        got, written = await exchange(reading, request(LAST, "expect: 100-continue\r\n"))
        assert written[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert len(written) == 2
        assert got.endswith(b"answer")

    run_scenario(scenario())


def test_a_client_that_leaves_between_head_and_body_is_no_defect():
    """On uvloop, which Ray has: it refuses to write to a connection that is gone."""
    ended: list[Exception | None] = []

    async def scenario() -> None:
        has_begun, is_gone = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            together = in_one_write(send)
            try:
                await receive()
                await together(HEAD)
                has_begun.set()
                await is_gone.wait()
                await receive()  # until uvicorn has noticed
                await together(BODY)
                ended.append(None)
            except Exception as error:  # whatever it is, the test shows it
                ended.append(error)

        async with serving(app, HttpToolsProtocol, []) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request())
            await has_begun.wait()
            writer.transport.abort()
            is_gone.set()
            while not ended:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)

    uvloop.run(asyncio.wait_for(scenario(), 20))
    assert ended == [None]


def test_a_replica_answers_so_and_what_is_no_replica_does_not():
    async def scenario() -> None:
        app = App()
        (middleware,) = before_serve.middlewares()
        replica = middleware.cls(app.asgi, *middleware.args, **middleware.kwargs)

        async def writes() -> int:
            written: list[bytes] = []
            async with serving(replica, HttpToolsProtocol, written) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request(LAST, path=V1, body='{"input": "a"}'))
                assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                writer.close()
            return len(written)

        with before_serve.guarded_by(app.asgi.state.gate):
            assert await writes() == 1
        assert await writes() == 2

    run_scenario(scenario())


def test_another_server_is_left_as_it_is():
    async def send(message: Any) -> None:
        raise AssertionError

    assert in_one_write(send) is send
