"""How often a failure is told, and that none is forgotten in the count."""

from __future__ import annotations

import logging

import pytest

from serving.failure_log import FailureLog


def test_failures_of_a_second_are_one_line_and_the_next_line_counts_the_others(
    caplog: pytest.LogCaptureFixture,
):
    times = iter([0.0, 0.1, 0.9, 1.0, 5.0])
    failures = FailureLog(logging.getLogger("ray.serve"), clock=lambda: next(times))

    for name in "abcde":
        failures.add(503, name, "not ready: it hangs")

    assert caplog.messages == [
        "answered 503 to request a: not ready: it hangs",
        "answered 503 to request d: not ready: it hangs (2 more since the last such line)",
        "answered 503 to request e: not ready: it hangs",
    ]
