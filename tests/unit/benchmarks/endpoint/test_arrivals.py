"""The open loop's schedule."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from benchmarks.endpoint.arrivals import arrivals


def test_every_system_gets_the_same_schedule():
    assert arrivals(50, 10, limit=10_000) == arrivals(50, 10, limit=10_000)


def test_arrivals_come_at_the_rate_and_in_order():
    times = arrivals(100, 100, limit=100_000)
    # A Poisson process of mean 10,000 has a standard deviation of 100.
    assert abs(len(times) - 10_000) < 400
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 100


def test_distances_vary_as_those_of_independent_clients_do():
    times = arrivals(100, 100, limit=100_000)
    distances = [later - earlier for earlier, later in pairwise(times)]
    # Exponential: the standard deviation is the mean.
    assert statistics.stdev(distances) == pytest.approx(statistics.mean(distances), rel=0.1)


def test_the_number_is_bounded():
    assert len(arrivals(1_000, 3600, limit=500)) == 500


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="above 0"):
        arrivals(rate, 1, limit=1)
