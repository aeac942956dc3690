"""The knee: the fewest connections of a closed loop with nine tenths of the best throughput."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import uvloop

from benchmarks.endpoint.load import closed_loop
from benchmarks.endpoint.load_loops import Target
from benchmarks.endpoint.samples import Load, describe
from benchmarks.summary import Result

__all__ = ["climb", "closed", "find_knee", "most_requests"]

_LADDER = (1, 2, 4, 8, 16, 32, 64, 128)
_KNEE_SHARE = 0.9
_DRAIN_S = 2.0
_MOST_PER_S = 20_000
"""Of a load's requests/s, beyond which it is cut: its samples are kept in memory. 1.2 million in a
minute, more than one client in Python sends."""


def climb(
    target: Target,
    step_s: float,
    knee_s: float,
    warm_up_s: float,
    say: Callable[[str, Result], None],
) -> tuple[int, Result]:
    """Find a server's knee; return its connections and the figures there.

    Args:
        target: Where to send what.
        step_s: Seconds of each step of the ladder that finds it.
        knee_s: Seconds at the knee itself.
        warm_up_s: Seconds before each step.
        say: Takes what a line measures, and the line.
    """
    steps: dict[int, float] = {}
    for count in _LADDER:
        figures = describe(closed(target, count, step_s, warm_up_s))
        say("step", {"connections": count, **figures})
        steps[count] = figures["requests_per_s"] or 0.0
    knee = find_knee(steps)
    at_knee = describe(closed(target, knee, knee_s, warm_up_s))
    say("knee", {"connections": knee, **at_knee})
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
