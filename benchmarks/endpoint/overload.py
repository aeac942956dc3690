"""How the endpoint behaves beyond what it can do, and how soon it is itself again.

Ten times the knee's load comes in two ways: ten times its connections, whose refused requests come
back at once, and ten times its requests/s, which come whatever is answered. After each of them the
knee's own load shows how long full speed takes to return.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import uvloop

from benchmarks.endpoint.arrivals import arrivals
from benchmarks.endpoint.knee import KneeProtocol, climb, closed, most_requests
from benchmarks.endpoint.load import open_loop
from benchmarks.endpoint.load_loops import Target
from benchmarks.endpoint.samples import OK, Load, Sample, describe
from benchmarks.lines import Line

__all__ = ["OverloadProtocol", "measure_overload", "recovery_s"]

_FACTOR = 10
_WINDOW_S = 0.5
_FULL_SHARE = 0.9
_IN_A_ROW = 2
_MAX_CONNECTIONS = 1024
_DRAIN_S = 2.0


@dataclass(frozen=True)
class OverloadProtocol(KneeProtocol):
    """How long what is measured.

    Attributes:
        overload_s: Each overload.
        recovery_s: Watched after each.
    """

    overload_s: float = 60.0
    recovery_s: float = 10.0


def recovery_s(samples: Sequence[Sample], full_per_s: float, seconds: float) -> float | None:
    """Return when full speed was back, in seconds from the first sample's time 0.

    It is back at the beginning of the first of two windows of half a second in a row, in each of
    which requests succeed at nine tenths of the full rate.

    Args:
        samples: Of the load that follows the overload at once.
        full_per_s: Requests/s that succeeded at the knee.
        seconds: How long that load was watched.

    Returns:
        None where full speed did not come back.
    """
    counts = [0] * int(seconds / _WINDOW_S)
    for sample in samples:
        window = int((sample.at_s + sample.seconds) / _WINDOW_S)
        if sample.status == OK and 0 <= window < len(counts):
            counts[window] += 1
    is_full = [count >= _FULL_SHARE * full_per_s * _WINDOW_S for count in counts]
    for window in range(len(is_full) - _IN_A_ROW + 1):
        if all(is_full[window : window + _IN_A_ROW]):
            return window * _WINDOW_S
    return None


def measure_overload(
    target: Target, protocol: OverloadProtocol, say: Callable[[str, Line], None]
) -> Line:
    """Measure knee, overloads and recoveries of a server that runs; return the summary.

    Args:
        target: Where to send what.
        protocol: How long.
        say: Takes what a line measures, and the line.
    """
    knee, at_knee = climb(target, protocol, say)
    summary: Line = {"knee_connections": knee, "knee": at_knee}
    rate = round(_FACTOR * at_knee["requests_per_s"], 2)
    overloads: dict[str, tuple[Line, Callable[[], Load]]] = {
        "closed loop": (
            {"connections": _FACTOR * knee},
            lambda: closed(target, _FACTOR * knee, protocol.overload_s, 0.0),
        ),
        "open loop": (
            {"rate": rate},
            lambda: _open(target, rate, protocol.overload_s),
        ),
    }
    for kind, (which, load) in overloads.items():
        heavy = load()
        overloaded = describe(heavy)
        say(f"overload, {kind}", {**which, **overloaded})
        after = closed(target, knee, protocol.recovery_s, 0.0)
        back_s = recovery_s(after.samples, at_knee["requests_per_s"], protocol.recovery_s)
        if back_s is not None:
            # Replies that were still waited for, and connections that were slow to open.
            back_s = round(back_s + after.began - heavy.stopped, 2)
        say(f"recovery, {kind}", {"recovery_s": back_s, **describe(after)})
        summary[kind] = _verdict(at_knee, overloaded, back_s)
    return summary


def _verdict(at_knee: Line, overloaded: Line, back_s: float | None) -> Line:
    p99 = overloaded["p99_ms"]
    ratio = p99 / at_knee["p99_ms"] if p99 else None
    return {
        "accepted_p99_to_knee": {
            "value": round(ratio, 3) if ratio is not None else None,
            "target": "< 3",
            "met": ratio is not None and ratio < 3,
        },
        "recovery_s": {
            "value": back_s,
            "target": "<= 5",
            "met": back_s is not None and back_s <= 5,
        },
    }


def _open(target: Target, rate: float, seconds: float) -> Load:
    most = most_requests(seconds)
    times = arrivals(rate, seconds, limit=most)
    load = uvloop.run(open_loop(target, times, max_connections=_MAX_CONNECTIONS, drain_s=_DRAIN_S))
    return replace(load, is_cut=len(times) == most)
