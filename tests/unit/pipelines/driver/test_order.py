"""Which units begin first, and that two runs on one output meet seldom."""

from __future__ import annotations

from dataclasses import replace

from pipelines.driver.order import order_of_work
from support.corpora import a_unit


def test_large_units_begin_first_and_equal_ones_in_an_order_of_the_runs_own():
    sizes = [10, 1000, 100_000, *[70] * 50]
    units = {str(number): replace(a_unit(), size_bytes=size) for number, size in enumerate(sizes)}
    one, other = (order_of_work(units, run, 0) for run in ("a", "b"))
    assert one[:2] == other[:2] == ["2", "1"]
    assert one[-1] == other[-1] == "0"
    assert sorted(one) == sorted(other) == sorted(units)
    assert one != other
    # Those that begin are of all sizes.
    assert order_of_work(units, "a", 5)[0] not in ("1", "2")
