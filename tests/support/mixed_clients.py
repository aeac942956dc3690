"""Clients of all manners at once: quick and slow ones, those that pipeline, and those that go away.

Every answer is held against what its request deserves.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from support.answers import assert_ours_is_shaped
from support.mixed_requests import MixedRequests, Request
from support.raw_connection import RawAnswer, RawConnection

__all__ = ["MixedClients"]

PATIENCE_S = 60
_ON_A_CONNECTION = 6


class MixedClients:
    """Clients of one endpoint.

    Args:
        url: Of the endpoint.
        requests: Makes what draws requests, from a seed.

    Attributes:
        answered: Answers by what was asked for and by status; all of them right.
    """

    def __init__(self, url: str, requests: Callable[[int], MixedRequests]) -> None:
        self._url = url
        self._host = url.rpartition("/")[2]
        self._requests = requests
        self.answered: Counter[tuple[str, int]] = Counter()

    async def work(self, *, connections: int, times: int, seed: int) -> None:
        """Let so many clients at once do something so many times each.

        Raises:
            AssertionError: An answer is not what its request deserves.
        """
        clients = (self._client(times, seed * 1000 + number) for number in range(connections))
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client)

    async def _client(self, times: int, seed: int) -> None:
        rng, requests = random.Random(seed), self._requests(seed)
        while times > 0:
            async with asyncio.timeout(PATIENCE_S), RawConnection.to(self._url) as connection:
                for _ in range(min(times, _ON_A_CONNECTION)):
                    times -= 1
                    manner = rng.choices(list(_MANNERS), list(_MANNERS.values()))[0]
                    if not await manner(self, connection, requests, rng):
                        break

    # Each returns whether the connection is still there.

    async def _asks(
        self, connection: RawConnection, requests: MixedRequests, rng: random.Random
    ) -> bool:
        parts = rng.choice([1, 1, 1, 1, 3])
        return await self._ask(connection, requests.draw(), parts=parts, pause_s=0.03)

    async def _pipelines(
        self, connection: RawConnection, requests: MixedRequests, rng: random.Random
    ) -> bool:
        asked = [(requests.embedding(), uuid.uuid4().hex) for _ in range(rng.randint(2, 4))]
        await connection.send(b"".join(r.on_the_wire(self._host, i) for r, i in asked))
        for request, request_id in asked:
            answer = await connection.answer()
            self._check(request, request_id, answer)
            if answer.closes:
                return False
        return True

    async def _reads_slowly(
        self, connection: RawConnection, requests: MixedRequests, _: random.Random
    ) -> bool:
        return await self._ask(connection, requests.large(), read_pause_s=0.05)

    async def _goes_away(
        self, connection: RawConnection, requests: MixedRequests, rng: random.Random
    ) -> bool:
        sent = requests.embedding().on_the_wire(self._host, "gone")
        with suppress(ConnectionError, TimeoutError):
            await connection.send(sent[: rng.choice([20, len(sent) // 2, len(sent)])])
            await asyncio.sleep(rng.choice([0, 0.002, 0.01, 0.05]))
            if rng.random() < 0.2:
                async with asyncio.timeout(0.1):
                    await connection.some()
        if rng.random() < 0.5:
            connection.abort()
        return False

    async def _never_ends(
        self, connection: RawConnection, requests: MixedRequests, _: random.Random
    ) -> bool:
        sent = requests.embedding().on_the_wire(self._host, "slow")
        await connection.send(sent[:-1])
        answer = await connection.answer()
        self._count(
            Request("POST", "", b"", frozenset({408, 413, 429}), "never ends"), "slow", answer
        )
        return False

    async def _ask(
        self,
        connection: RawConnection,
        request: Request,
        *,
        parts: int = 1,
        pause_s: float = 0.0,
        read_pause_s: float = 0.0,
    ) -> bool:
        request_id = uuid.uuid4().hex
        await connection.send(
            request.on_the_wire(self._host, request_id), parts=parts, pause_s=pause_s
        )
        answer = await connection.answer(has_body=request.method != "HEAD", pause_s=read_pause_s)
        self._check(request, request_id, answer)
        return not answer.closes

    def _check(self, request: Request, request_id: str, answer: RawAnswer) -> None:
        said = f"{request.kind}: {request.method} {request.path} {request.body[:300]!r}"
        try:
            self._count(request, request_id, answer)
        except (AssertionError, KeyError) as error:
            raise AssertionError(
                f"{said}: {answer.status} {answer.headers} {answer.body[:300]!r}: {error}"
            ) from error

    def _count(self, request: Request, request_id: str, answer: RawAnswer) -> None:
        assert answer.status in request.statuses, f"expected {set(request.statuses)}"
        assert answer.headers["x-request-id"] == request_id
        assert_ours_is_shaped(answer.status, answer.headers, answer.body)
        if answer.status == 200:
            request.check(answer.headers, answer.body)
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
        self.answered[request.kind, answer.status] += 1


_MANNERS = {
    MixedClients._asks: 12,
    MixedClients._pipelines: 2,
    MixedClients._reads_slowly: 0.5,
    MixedClients._goes_away: 3,
    MixedClients._never_ends: 0.1,
}
"""With how often each is seen."""
