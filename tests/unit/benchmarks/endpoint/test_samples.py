"""Percentiles are values that were measured; failures count as errors and nowhere else."""

from __future__ import annotations

import pytest

from benchmarks.endpoint.samples import NO_REPLY, Load, Sample, describe, percentile


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.5, 1), (1, 0.99, 1), (2, 0.5, 1), (100, 0.5, 50), (100, 0.99, 99), (100, 1.0, 100)],
)
def test_a_percentile_is_the_nearest_rank(count, share, expected):
    values = list(range(count, 0, -1))
    assert percentile(values, share) == expected


def test_a_share_that_is_not_exact_in_binary_does_not_skip_a_rank():
    # 0.07 * 100 is 7.000000000000001.
    assert percentile(range(1, 101), 0.07) == 7


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_is_refused(values, share):
    with pytest.raises(ValueError, match="expected"):
        percentile(values, share)


def test_rate_and_latencies_are_those_of_the_requests_that_succeeded():
    samples = [Sample(0.0, 0.010, 200)] * 9 + [Sample(0.0, 5.0, 429), Sample(0.0, 9.0, NO_REPLY)]
    figures = describe(Load(samples, seconds=3.0, not_sent=1))
    assert figures["requests"] == 11
    assert figures["requests_per_s"] == 3.0
    assert figures["p50_ms"] == figures["p99_ms"] == 10.0
    assert figures["errors"] == 2
    assert figures["errors_by_status"] == {"no reply": 1, "429": 1}
    assert figures["not_sent"] == 1


def test_a_load_without_success_has_no_latency():
    figures = describe(Load([Sample(0.0, 0.1, 500)], seconds=1.0))
    assert figures["requests_per_s"] == 0
    assert figures["p50_ms"] is None
    assert figures["errors"] == 1
