"""Responses of a real uvicorn, and how often it writes to a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.one_write import in_one_write
from support.ports import free_port
from support.replica_app import run_scenario

REQUEST = b"POST / HTTP/1.1\r\nhost: replica\r\ncontent-length: 2\r\nconnection: close\r\n"
HEAD = {"type": "http.response.start", "status": 200}
LENGTH = [(b"content-length", b"6")]
App = Callable[[Receive, Send], Awaitable[None]]


async def exchange(
    app: App, protocol: type = HttpToolsProtocol, head: bytes = REQUEST
) -> tuple[bytes, list[bytes]]:
    """Return what a client of a server of `app` got, and what was written, each time."""
    written: list[bytes] = []

    class Counted:
        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def __getattr__(self, name: str) -> Any:
            return getattr(self.transport, name)

        def write(self, data: bytes) -> None:
            written.append(data)
            self.transport.write(data)

        def writelines(self, parts: list[bytes]) -> None:
            self.write(b"".join(parts))

    class Protocol(protocol):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(Counted(transport))

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await app(receive, in_one_write(send))

    port = free_port()
    config = uvicorn.Config(
        served, "127.0.0.1", port, http=Protocol, lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"\r\n{}")
    got = await reader.read()
    writer.close()
    server.should_exit = True
    await serving
    return got, written


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])
def test_head_and_body_are_one_write(protocol: type):
    async def app(receive: Receive, send: Send) -> None:
        await send({**HEAD, "headers": LENGTH})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"answer"})

    async def scenario() -> None:
        got, written = await exchange(app, protocol)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert got.endswith(b"\r\n\r\nanswer")
        assert written == [got]

    run_scenario(scenario())


def test_what_follows_the_first_part_of_a_body_is_written_as_it_comes():
    async def app(receive: Receive, send: Send) -> None:
        await send({**HEAD, "headers": LENGTH})
        for part in (b"an", b"sw", b"er"):
            await send({"type": "http.response.body", "body": part, "more_body": part != b"er"})

    async def scenario() -> None:
        got, written = await exchange(app)
        assert [part[-2:] for part in written] == [b"an", b"sw", b"er"]
        assert b"".join(written) == got

    run_scenario(scenario())


def test_a_head_whose_body_never_comes_is_sent_before_the_connection_is_closed():
    async def app(receive: Receive, send: Send) -> None:
        await send({**HEAD, "headers": LENGTH})
        raise RuntimeError

    async def scenario() -> None:
        got, _ = await exchange(app)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")

    run_scenario(scenario())


def test_an_application_that_raises_before_its_answer_is_a_500():
    async def app(receive: Receive, send: Send) -> None:
        raise RuntimeError

    async def scenario() -> None:
        got, _ = await exchange(app)
        assert got.startswith(b"HTTP/1.1 500 ")
        assert got.endswith(b"Internal Server Error")

    run_scenario(scenario())


def test_a_client_that_asks_before_it_sends_its_body_is_told_at_once():
    async def app(receive: Receive, send: Send) -> None:
        await receive()
        await send({**HEAD, "headers": LENGTH})
        await send({"type": "http.response.body", "body": b"answer"})

    async def scenario() -> None:
        got, written = await exchange(app, head=REQUEST + b"expect: 100-continue\r\n")
        assert written[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert len(written) == 2
        assert got.endswith(b"answer")

    run_scenario(scenario())


def test_another_server_is_left_as_it_is():
    async def send(message: Any) -> None:
        raise AssertionError

    assert in_one_write(send) is send
