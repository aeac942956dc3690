"""The load generator against a server in the same process, over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.endpoint.load import closed_loop, open_loop
from benchmarks.endpoint.load_loops import Target
from benchmarks.endpoint.requests import http_requests
from benchmarks.endpoint.samples import NO_REPLY, describe

# Before it measures, the load generator collects garbage: here that of earlier tests, among it S3
# clients whose event loop has ended (aiobotocore), which say so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers every request with `reply` after `delay_s`; an empty reply breaks the connection."""

    def __init__(self, reply: bytes, delay_s: float) -> None:
        self.bodies: list[bytes] = []
        self.connections = 0
        self.under_way = 0
        self.most_under_way = 0
        self._reply = reply
        self._delay_s = delay_s

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                self.under_way += 1
                self.most_under_way = max(self.under_way, self.most_under_way)
                await asyncio.sleep(self._delay_s)
                self.under_way -= 1
                if not self._reply:
                    break
                # In two parts, as a network may deliver it.
                writer.write(self._reply[:20])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(self._reply[20:])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    reply: bytes = REPLY, delay_s: float = 0.0
) -> AsyncIterator[tuple[Server, Target]]:
    server = Server(reply, delay_s)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield server, Target(port, http_requests(["één", "two", "three"], port))
    finally:
        listening.close()


def test_a_closed_loop_sends_the_requests_in_turn_over_its_connections():
    async def run():
        async with serving() as (server, target):
            return server, await closed_loop(target, connections=1, seconds=0.1, first=1)

    server, load = asyncio.run(run())
    assert server.connections == 1
    assert describe(load)["errors"] == 0
    assert len(load.latencies_s) >= 3
    inputs = [body.decode().partition('"input": "')[2].partition('"')[0] for body in server.bodies]
    assert inputs[:4] == ["two", "three", "één", "two"]


def test_a_closed_loop_keeps_as_many_requests_under_way_as_it_has_connections():
    async def run():
        async with serving(delay_s=0.05) as (server, target):
            load = await closed_loop(target, connections=8, seconds=0.5, warm_up_s=0.1)
            return server, load

    server, load = asyncio.run(run())
    assert server.connections == server.most_under_way == 8
    assert describe(load)["errors"] == 0
    assert "cut_after_s" not in describe(load)
    assert min(load.latencies_s) >= 0.049


def test_a_closed_loop_ends_at_its_largest_number_of_requests():
    async def run():
        async with serving() as (_, target):
            return await closed_loop(target, connections=2, seconds=60, max_requests=20)

    load = asyncio.run(run())
    assert load.seconds < 30
    assert 0 <= describe(load)["cut_after_s"] < 30


def test_connections_that_break_are_errors_and_are_replaced():
    async def run():
        async with serving(reply=b"") as (server, target):
            return server, await closed_loop(target, connections=2, seconds=60, max_requests=5)

    server, load = asyncio.run(run())
    assert load.latencies_s == []
    assert {sample.status for sample in load.samples} == {NO_REPLY}
    assert server.connections > 2


def test_a_reply_without_a_length_is_an_error():
    async def run():
        async with serving(reply=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n") as (
            _,
            t,
        ):
            return await closed_loop(t, connections=1, seconds=0.1)

    assert {sample.status for sample in asyncio.run(run()).samples} == {NO_REPLY}


def test_in_an_open_loop_the_time_that_a_request_waits_for_a_connection_counts():
    async def run():
        async with serving(delay_s=0.1) as (_, target):
            return await open_loop(target, [0.01] * 3, max_connections=1)

    load = asyncio.run(run())
    assert len(load.latencies_s) == 3
    for position, seconds in enumerate(sorted(load.latencies_s)):
        assert seconds >= 0.098 * (position + 1)


def test_requests_without_an_answer_at_the_end_are_errors():
    async def run():
        async with serving(delay_s=30) as (_, target):
            return await open_loop(target, [0.01, 0.02, 0.03], max_connections=2, drain_s=0.1)

    load = asyncio.run(run())
    assert [sample.status for sample in load.samples] == [NO_REPLY] * 3
    assert load.not_sent == 1
