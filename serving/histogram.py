"""Times in buckets, told to Ray as Prometheus has them: counts up to each bound, number and sum.

Not Ray's own histogram: a node's agent replays every value of it to another library, one by one,
20 us each and those of ten seconds at once. At 500 requests/s that took a core for 0.3 s, in which
the encoder stood still. And its sum is made of the middles of buckets (ray#64852). Gauges are gone
soon after the replica that told them, and may be read between two of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

from ray.serve import metrics

__all__ = ["Histogram", "tag_keys"]


def tag_keys(labels: tuple[str, ...]) -> tuple[str]:
    """Return labels as Ray's annotation has them, which says one of several."""
    return cast("tuple[str]", labels)


@dataclass
class _Times:
    """Those of one value of the label."""

    counts: list[int]
    sum: float = 0.0


class Histogram:
    """Exported as `NAME_bucket{le}`, `NAME_count` and `NAME_sum`; to Ray they are gauges.

    Args:
        name: Without the ending.
        description: For who reads /metrics.
        bounds: Upper bounds, ascending; what is above the last is counted, too.
        label: Name of the one label.
    """

    def __init__(self, name: str, description: str, bounds: Sequence[float], label: str) -> None:
        def gauge(ending: str, *labels: str) -> metrics.Gauge:
            return metrics.Gauge(f"{name}_{ending}", description, tag_keys=tag_keys(labels))

        self._label = label
        self._bounds = bounds
        self._texts = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._buckets = gauge("bucket", label, "le")
        self._count = gauge("count", label)
        self._sum = gauge("sum", label)
        self._times: dict[str, _Times] = {}

    def observe(self, value: float, of: str) -> None:
        """Count a value.

        Args:
            value: In the unit of the bounds.
            of: The label's value.
        """
        times = self._times.get(of)
        if times is None:
            times = self._times[of] = _Times([0] * len(self._texts))
        times.counts[bisect_left(self._bounds, value)] += 1
        times.sum += value

    def tell(self) -> None:
        """Tell Ray how many there were until now."""
        for of, times in self._times.items():
            labels = {self._label: of}
            totals = list(accumulate(times.counts))
            for text, total in zip(self._texts, totals, strict=True):
                self._buckets.set(total, {**labels, "le": text})
            self._count.set(totals[-1], labels)
            self._sum.set(times.sum, labels)
