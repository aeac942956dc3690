"""Load on an endpoint from one asyncio client, every answer kept with its times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

__all__ = ["Answer", "Load", "offer", "send", "work"]


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        started: When the request was sent, `time.monotonic()`.
        ended: When the answer was complete, or the connection closed.
        status: HTTP status; None where the connection was closed without an answer.
        headers: Of the answer.
        body: Of the answer.
        failure: What the client says where there was no answer.
    """

    started: float
    ended: float
    status: int | None
    headers: httpx.Headers
    body: bytes
    failure: str = ""


@dataclass(frozen=True)
class Load:
    """What is sent, again and again."""

    url: str
    content: dict[str, Any]
    timeout_s: float = 60.0

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        return httpx.AsyncClient(timeout=self.timeout_s, limits=limits)


async def send(client: httpx.AsyncClient, load: Load) -> Answer:
    """Send one request; a closed connection is an answer, too."""
    started = time.monotonic()
    try:
        response = await client.post(load.url, json=load.content)
    except httpx.TransportError as error:
        failure = f"{type(error).__name__}: {error}"
        return Answer(started, time.monotonic(), None, httpx.Headers(), b"", failure)
    ended = time.monotonic()
    return Answer(started, ended, response.status_code, response.headers, response.content)


async def offer(load: Load, *, per_s: float, seconds: float) -> list[Answer]:
    """Send requests at a fixed rate, whether answers come or not (an open loop)."""
    async with load.client() as client:
        begin, sent = time.monotonic(), []
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(max(0.0, begin + number / per_s - time.monotonic()))
            sent.append(asyncio.create_task(send(client, load)))
        return await asyncio.gather(*sent)


async def work(load: Load, *, connections: int, until: Callable[[], None]) -> list[Answer]:
    """Keep so many requests under way until `until`, in a thread, returns (a closed loop)."""
    answers: list[Answer] = []
    stop = asyncio.Event()

    async def keep_one_under_way(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answer = await send(client, load)
            answers.append(answer)
            if answer.status is None:
                await asyncio.sleep(0.1)

    async with load.client() as client:
        workers = [asyncio.create_task(keep_one_under_way(client)) for _ in range(connections)]
        try:
            await asyncio.to_thread(until)
        finally:
            stop.set()
            await asyncio.gather(*workers)
    return answers
