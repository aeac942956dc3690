"""What the summary says of the runs."""

from __future__ import annotations

import pytest

from benchmarks.summary import check_comparable, summarize


def bare(tokens_per_s: float | None) -> dict[str, object]:
    return {
        "documents_per_s": 1.0,
        "tokens_per_s": tokens_per_s,
        "peak_rss_bytes": 100,
        "padding_waste": 0.03,
    }


def job(tokens_per_s: float | None, actor_bytes: int = 200) -> dict[str, object]:
    return {
        "documents_per_s": 1.0,
        "tokens_per_s": tokens_per_s,
        "wall_tokens_per_s": 50.0,
        "padding_waste": 0.03,
        "actor_peak_rss_bytes": actor_bytes,
        "driver_peak_rss_bytes": 100,
        "tree_peak_bytes": 500,
    }


def test_the_ratio_is_the_median_of_the_pairs_not_the_ratio_of_the_medians():
    summary = summarize([bare(100), bare(200), bare(50)], [job(90), job(190), job(48)], None)
    assert summary["job_to_bare"] == 0.95
    assert summary["job_to_bare_range"] == [0.9, 0.96]
    assert summary["job_tokens_per_s"] == 90


def test_runs_with_a_single_window_have_no_ratio():
    summary = summarize([bare(None)], [job(None)], None)
    assert "job_to_bare" not in summary
    assert summary["bare_tokens_per_s"] is None


def test_memory_growth_compares_the_large_run_with_the_median_of_the_others():
    summary = summarize([bare(1)] * 3, [job(1, 200), job(1, 210), job(1, 400)], job(1, 231))
    assert summary["actor_memory_growth"] == 0.1
    assert summary["driver_memory_growth"] == 0.0


@pytest.mark.parametrize(
    ("name", "other"), [("documents", 9), ("tokens", 99), ("backend", "torch"), ("dtype", "f")]
)
def test_loop_and_job_must_have_done_the_same_work(name, other):
    run = {"documents": 10, "tokens": 100, "backend": "openvino", "dtype": "bfloat16"}
    check_comparable(run, dict(run))
    with pytest.raises(ValueError, match=f"{name} is .* in the loop and {other} in the job"):
        check_comparable(run, {**run, name: other})
