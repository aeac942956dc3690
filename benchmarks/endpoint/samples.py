"""What a load generator saw, and the figures that describe it. Knows nothing of HTTP."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.lines import Line

__all__ = ["NO_REPLY", "OK", "Load", "Sample", "describe", "percentile"]

OK = 200
NO_REPLY = 0
"""Status of a request whose connection broke, or that had no reply when the load was ended."""


class Sample(NamedTuple):
    """One request.

    Attributes:
        at_s: When it arrived, from the beginning of what is measured.
        seconds: From its arrival to the last byte of its reply.
        status: Of HTTP, or NO_REPLY.
    """

    at_s: float
    seconds: float
    status: int


@dataclass(frozen=True)
class Load:
    """The requests of one load.

    Attributes:
        samples: In the order of their ends.
        seconds: How long was measured.
        not_sent: Arrivals for which no connection was free until the end; among the samples too.
        client_share: Of one core, what the load generator took: near 1 it was what was measured.
        began: When `at_s` was 0, by `time.perf_counter`.
        stopped: When the last request had been sent, by the same clock.
        is_cut: Whether it was ended early, by the largest number of requests that it may have.
    """

    samples: Sequence[Sample]
    seconds: float
    not_sent: int = 0
    client_share: float = 0.0
    began: float = 0.0
    stopped: float = 0.0
    is_cut: bool = False

    @property
    def latencies_s(self) -> list[float]:
        """Seconds of the requests that got what they asked for."""
        return [sample.seconds for sample in self.samples if sample.status == OK]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is not exceeded by at least `share` of the values.

    Nearest rank, without interpolation: always a value that was measured.

    Raises:
        ValueError: There are no values, or `share` is not above 0 and at most 1.
    """
    if not values:
        raise ValueError("expected at least one value, found none")
    if not 0 < share <= 1:
        raise ValueError(f"expected a share above 0 and at most 1, found {share}")
    # The product is rounded first: 0.99 * 100 is 99.00000000000001 for some shares and counts.
    return sorted(values)[math.ceil(round(share * len(values), 9)) - 1]


def describe(load: Load) -> Line:
    """Return a load's figures; latencies and rate are those of the requests that succeeded."""
    latencies = load.latencies_s
    statuses = Counter(sample.status for sample in load.samples if sample.status != OK)
    figures: Line = {
        "requests": len(load.samples),
        "requests_per_s": round(len(latencies) / load.seconds, 2) if load.seconds else None,
        "p50_ms": round(percentile(latencies, 0.5) * 1e3, 3) if latencies else None,
        "p99_ms": round(percentile(latencies, 0.99) * 1e3, 3) if latencies else None,
        "errors": sum(statuses.values()),
        "client_share": round(load.client_share, 3),
    }
    if statuses:
        names = {NO_REPLY: "no reply"}
        figures["errors_by_status"] = {
            names.get(status, str(status)): count for status, count in sorted(statuses.items())
        }
    if load.not_sent:
        figures["not_sent"] = load.not_sent
    if load.is_cut:
        figures["cut_after_s"] = round(load.stopped - load.began, 2)
    return figures
