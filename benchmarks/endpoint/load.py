"""One load against one server: bounded in time and in requests, its connections closed after it."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Sequence

from benchmarks.endpoint.load_loops import ClosedLoop, OpenLoop, Target
from benchmarks.endpoint.samples import NO_REPLY, Load, Sample

__all__ = ["closed_loop", "open_loop"]

_FIRST_CONNECTIONS = 64
"""That an open loop has before its first arrival; more are opened when none is free."""


async def closed_loop(
    target: Target,
    *,
    connections: int,
    seconds: float,
    warm_up_s: float = 0.0,
    max_requests: int = 100_000,
    first: int = 0,
    drain_s: float = 10.0,
) -> Load:
    """Send over N connections, each one request after the other.

    Args:
        target: Where to send what.
        connections: N.
        seconds: How long is measured; requests count where they end.
        warm_up_s: What comes before that and is not counted.
        max_requests: Ends the load early, which is then said to be cut.
        first: Index of the first request.
        drain_s: How long replies are waited for at the end.

    Raises:
        TimeoutError: The connections could not be opened.
    """
    loop = ClosedLoop(target, first, connections, max_requests)
    await loop.open(connections, drain_s)
    with _without_garbage_collection():
        loop.start()
        await loop.enough(loop.began + warm_up_s)
        begin, cpu = time.perf_counter(), time.process_time()
        is_cut = await loop.enough(begin + seconds)
        end, cpu_s = time.perf_counter(), time.process_time() - cpu
        await loop.finish(drain_s)
    offset_s, measured_s = begin - loop.began, end - begin
    samples = [
        Sample(sample.at_s - offset_s, sample.seconds, sample.status)
        for sample in loop.samples
        if sample.status == NO_REPLY or 0 <= sample.at_s + sample.seconds - offset_s <= measured_s
    ]
    return Load(samples, measured_s, 0, cpu_s / measured_s, begin, end, is_cut)


async def open_loop(
    target: Target,
    times: Sequence[float],
    *,
    max_connections: int = 512,
    first: int = 0,
    drain_s: float = 10.0,
) -> Load:
    """Send a request at each of the given times, over as many connections as that takes.

    Args:
        target: Where to send what.
        times: Seconds from the beginning, ascending; at least one.
        max_connections: Beyond them requests wait in the client.
        first: Index of the first request.
        drain_s: How long replies are waited for after the last arrival.

    Raises:
        TimeoutError: The connections could not be opened.
    """
    loop = OpenLoop(target, first, max_connections)
    await loop.open(min(_FIRST_CONNECTIONS, max_connections), drain_s)
    with _without_garbage_collection():
        cpu = time.process_time()
        await loop.run(times)
        end, cpu_s = time.perf_counter(), time.process_time() - cpu
        not_sent = await loop.finish(drain_s)
    sent_s = end - loop.began
    last_s = max((sample.at_s + sample.seconds for sample in loop.samples), default=0.0)
    return Load(loop.samples, max(sent_s, last_s), not_sent, cpu_s / sent_s, loop.began, end)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Keep the collector from stopping the client in the middle of a load."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
