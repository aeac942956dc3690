"""The two ways to send: a closed loop over N connections, and an open loop at given times.

What they share is a set of connections to one server, of which one that breaks is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.endpoint.connection import Connection
from benchmarks.endpoint.samples import NO_REPLY, Sample

__all__ = ["ClosedLoop", "OpenLoop", "Target"]

_HOST = "127.0.0.1"
_TICK_S = 0.005
_TIMER_S = 0.002
"""An event loop's timers are late by up to a millisecond or two; that is not the server's doing."""
_RECONNECT_S = 0.05


@dataclass(frozen=True)
class Target:
    """Where to send what.

    Attributes:
        port: On 127.0.0.1.
        requests: Whole HTTP requests, sent in turn.
    """

    port: int
    requests: Sequence[bytes] = field(repr=False)


class _Loop:
    """What both loops share.

    Args:
        target: Where to send what.
        first: Index of the first request.
        max_connections: Open at once.

    Attributes:
        samples: Requests that ended; `at_s` counts from `began`.
        began: By `time.perf_counter`.
        waiting: Arrivals that found no free connection.
    """

    def __init__(self, target: Target, first: int, max_connections: int) -> None:
        self.samples: list[Sample] = []
        self.began = 0.0
        self.waiting: deque[float] = deque()
        self._target = target
        self._next = first
        self._max_connections = max_connections
        self._connections: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._is_running = False

    def ended(self, arrived: float, status: int) -> None:
        """Count a request."""
        now = time.perf_counter()
        self.samples.append(Sample(arrived - self.began, now - arrived, status))

    def lost(self, connection: Connection) -> None:
        """Forget a connection, and open another while the load runs."""
        self._connections.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
        if self._is_running:
            self.open_one(_RECONNECT_S)

    def idle(self, connection: Connection) -> None:
        """Take a connection that has nothing under way."""
        self._connections.add(connection)
        self._idle.append(connection)

    def open_one(self, delay_s: float = 0.0) -> None:
        """Open a connection, unless there are as many as may be."""
        if len(self._connections) + len(self._opening) < self._max_connections:
            task = asyncio.create_task(self._connect(delay_s))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def open(self, count: int, timeout_s: float) -> None:
        """Open connections and wait for them.

        Raises:
            TimeoutError: They were not open in time.
        """
        for _ in range(count):
            self.open_one()
        await _until(lambda: len(self._idle) >= count, time.perf_counter() + timeout_s)
        if len(self._idle) < count:
            raise TimeoutError(
                f"expected {count} connections to port {self._target.port} within {timeout_s:g} s, "
                f"found {len(self._idle)}"
            )

    def send(self, connection: Connection, arrived: float) -> None:
        """Send the next request."""
        content = self._target.requests[self._next % len(self._target.requests)]
        self._next += 1
        connection.request(content, arrived)

    async def finish(self, drain_s: float) -> int:
        """Wait for what is under way, close everything; return how many were never sent."""
        self._is_running = False
        await _until(self._is_drained, time.perf_counter() + drain_s)
        not_sent = len(self.waiting)
        unanswered = [c.arrived for c in self._connections if c.arrived is not None]
        for arrived in [*unanswered, *self.waiting]:
            self.ended(arrived, NO_REPLY)
        self.waiting.clear()
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(_TICK_S)  # asyncio calls connection_lost in its next turn
        return not_sent

    def _is_drained(self) -> bool:
        return not self.waiting and all(c.arrived is None for c in self._connections)

    async def _connect(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        while True:
            # A server that is overwhelmed may refuse; the load goes on with what it has.
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self), _HOST, self._target.port
                )
                return
            await asyncio.sleep(_RECONNECT_S)


class ClosedLoop(_Loop):
    """Each connection sends its next request when it has the reply to the one before.

    Args:
        target: Where to send what.
        first: Index of the first request.
        connections: Open at once.
        max_requests: So many replies are enough.
    """

    def __init__(self, target: Target, first: int, connections: int, max_requests: int) -> None:
        super().__init__(target, first, connections)
        self._max_requests = max_requests
        self._is_enough = asyncio.Event()

    def ended(self, arrived: float, status: int) -> None:
        """Count a request."""
        super().ended(arrived, status)
        if len(self.samples) >= self._max_requests:
            self._is_enough.set()

    async def enough(self, at: float) -> bool:
        """Wait for enough replies, at most until `time.perf_counter` says `at`; say if they came.

        Nothing wakes the client meanwhile but replies: it shares the cores with the server.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_enough.wait(), max(0.0, at - time.perf_counter()))
        return self._is_enough.is_set()

    def start(self) -> None:
        """Send the first request of every connection."""
        self._is_running = True
        self.began = time.perf_counter()
        for _ in range(len(self._idle)):
            self.send(self._idle.popleft(), time.perf_counter())

    def idle(self, connection: Connection) -> None:
        """Send the next request."""
        if not self._is_running:
            super().idle(connection)
            return
        self._connections.add(connection)
        self.send(connection, time.perf_counter())


class OpenLoop(_Loop):
    """Requests arrive when they do; one that finds no free connection waits, and its time runs."""

    async def run(self, times: Sequence[float]) -> None:
        """Let a request arrive at each of the times, in seconds from now."""
        self._is_running = True
        self.began = time.perf_counter()
        for at_s in times:
            due = self.began + at_s
            delay_s = due - time.perf_counter()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            now = time.perf_counter()
            self._arrive(now if now - due < _TIMER_S else due)

    def idle(self, connection: Connection) -> None:
        """Send a request that waits, if there is one."""
        if not self.waiting:
            super().idle(connection)
            return
        self._connections.add(connection)
        self.send(connection, self.waiting.popleft())

    def _arrive(self, arrived: float) -> None:
        if self._idle:
            # The one that was used last: its server side is the warmest.
            self.send(self._idle.pop(), arrived)
        else:
            self.waiting.append(arrived)
            self.open_one()


async def _until(is_done: Callable[[], bool], at: float) -> None:
    """Wait until something is done, at most until `time.perf_counter` says `at`."""
    while not is_done() and time.perf_counter() < at:  # noqa: ASYNC110 - the clock has no event
        await asyncio.sleep(_TICK_S)
