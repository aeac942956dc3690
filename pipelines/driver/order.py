"""The order in which a run's units are worked on."""

from __future__ import annotations

import random
from collections.abc import Mapping

from pipelines.source.units import WorkUnit

__all__ = ["order_of_work"]


def order_of_work(units: Mapping[str, WorkUnit], run_id: str, begun: int) -> list[str]:
    """Return the keys in an order of the run's own, so that two jobs on one output meet seldom.

    But the largest come early, by powers of two, or all would wait for one of hours in the end.
    Before them as many of all sizes as are under way at once: where the largest fail, something is
    committed, and the run goes on without them.
    """
    order = random.Random(run_id).sample(sorted(units), len(units))
    rest = sorted(order[begun:], key=lambda key: -units[key].size_bytes.bit_length())
    return order[:begun] + rest
