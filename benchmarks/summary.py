"""What the runs of a benchmark say together."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.lines import Line

__all__ = ["check_comparable", "summarize"]


def check_comparable(bare: Line, job: Line) -> None:
    """Check that loop and job did the same work in the same way.

    Raises:
        ValueError: They did not; names what differs.
    """
    for name in ("documents", "tokens", "backend", "dtype"):
        if bare[name] != job[name]:
            raise ValueError(
                f"loop and job are not comparable: {name} is {bare[name]} in the loop and "
                f"{job[name]} in the job; give --backend and --dtype, or look for rejected rows"
            )


def summarize(bare: list[Line], jobs: list[Line], large: Line | None) -> Line:
    """Return medians; the ratio is the median of the pairs' ratios, with the least and the most."""
    summary: Line = {
        "bare_documents_per_s": _median(bare, lambda r: r["documents_per_s"]),
        "bare_tokens_per_s": _median(bare, lambda r: r["tokens_per_s"]),
        "bare_peak_rss_bytes": _median(bare, lambda r: r["peak_rss_bytes"]),
        "bare_padding_waste": _median(bare, lambda r: r["padding_waste"]),
        "job_documents_per_s": _median(jobs, lambda r: r["documents_per_s"]),
        "job_tokens_per_s": _median(jobs, lambda r: r["tokens_per_s"]),
        "job_wall_tokens_per_s": _median(jobs, lambda r: r["wall_tokens_per_s"]),
        "job_padding_waste": _median(jobs, lambda r: r["padding_waste"]),
        "job_actor_peak_rss_bytes": _median(jobs, lambda r: r["actor_peak_rss_bytes"]),
        "job_driver_peak_rss_bytes": _median(jobs, lambda r: r["driver_peak_rss_bytes"]),
        "job_tree_peak_bytes": _median(jobs, lambda r: r["tree_peak_bytes"]),
    }
    pairs = [
        job["tokens_per_s"] / loop["tokens_per_s"]
        for loop, job in zip(bare, jobs, strict=True)
        if loop["tokens_per_s"] and job["tokens_per_s"]
    ]
    if pairs:
        summary["job_to_bare"] = round(statistics.median(pairs), 4)
        summary["job_to_bare_range"] = [round(min(pairs), 4), round(max(pairs), 4)]
    if large is not None:
        for who in ("actor", "driver"):
            small = summary[f"job_{who}_peak_rss_bytes"]
            summary[f"{who}_memory_growth"] = round(large[f"{who}_peak_rss_bytes"] / small - 1, 4)
    return summary


def _median(results: list[Line], value: Callable[[Line], float | None]) -> float | None:
    """Return the median of what was measured; None where a run had too few windows to say."""
    found = [number for number in map(value, results) if number is not None]
    return statistics.median(found) if found else None
