"""The knee: the fewest connections of a closed loop with nine tenths of the best throughput."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import uvloop

from benchmarks.endpoint.load import closed_loop
from benchmarks.endpoint.load_loops import Target
from benchmarks.endpoint.samples import Load, describe
from benchmarks.lines import Line

__all__ = ["KneeProtocol", "climb", "closed", "find_knee", "most_requests"]

_MOST_CONNECTIONS = 1_024
_KNEE_SHARE = 0.9
_FAILED_SHARE = 0.01
_DRAIN_S = 2.0
_MOST_PER_S = 20_000
"""Of a load's requests/s, beyond which it is cut: its samples are kept in memory. 1.2 million in a
minute, more than one client in Python sends."""


@dataclass(frozen=True)
class KneeProtocol:
    """How long the knee is looked for.

    Attributes:
        step_s: Each step of the ladder that finds it.
        warm_up_s: Before each step.
        knee_s: The knee itself.
    """

    step_s: float = 4.0
    warm_up_s: float = 1.0
    knee_s: float = 5.0


def climb(
    target: Target, protocol: KneeProtocol, say: Callable[[str, Line], None]
) -> tuple[int, Line]:
    """Find a server's knee; return its connections and the figures there.

    Connections double until more than 1% of the requests fail, or throughput is below nine tenths
    of the best.

    Args:
        target: Where to send what.
        protocol: How long.
        say: Takes what a line measures, and the line.

    Raises:
        ValueError: No request was answered well there.
    """
    steps: dict[int, float] = {}
    count = 1
    while count <= _MOST_CONNECTIONS:
        figures = describe(closed(target, count, protocol.step_s, protocol.warm_up_s))
        say("step", {"connections": count, **figures})
        if figures["errors"] > _FAILED_SHARE * figures["requests"]:
            break  # it refuses what comes: the knee lies below
        steps[count] = figures["requests_per_s"] or 0.0
        if steps[count] < _KNEE_SHARE * max(steps.values()):
            break
        count *= 2
    if not steps:
        raise ValueError(f"expected answers at 1 connection, found {figures}")
    knee = find_knee(steps)
    at_knee = describe(closed(target, knee, protocol.knee_s, protocol.warm_up_s))
    say("knee", {"connections": knee, **at_knee})
    if not at_knee["requests_per_s"]:
        raise ValueError(f"expected answers at {knee} connections, found {at_knee}")
    return knee, at_knee


def find_knee(requests_per_s: Mapping[int, float]) -> int:
    """Return the fewest connections that reach nine tenths of the best throughput.

    Raises:
        ValueError: There are none.
    """
    if not requests_per_s:
        raise ValueError("expected at least one step, found none")
    enough = _KNEE_SHARE * max(requests_per_s.values())
    return min(count for count, rate in requests_per_s.items() if rate >= enough)


def closed(target: Target, connections: int, seconds: float, warm_up_s: float) -> Load:
    """Run a closed loop; see `closed_loop`."""
    return uvloop.run(
        closed_loop(
            target,
            connections=connections,
            seconds=seconds,
            warm_up_s=warm_up_s,
            max_requests=most_requests(warm_up_s + seconds),
            drain_s=_DRAIN_S,
        )
    )


def most_requests(seconds: float) -> int:
    """Return how many requests a load of so many seconds may have."""
    return math.ceil(_MOST_PER_S * seconds)
