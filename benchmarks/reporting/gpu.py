"""The lines of `benchmarks.gpu` as a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.lines import Line
from benchmarks.reporting.markdown import markdown

__all__ = ["gpu_table"]

_FIRST_PASS = 0


def gpu_table(lines: Sequence[Line]) -> str:
    """Return each system's first pass and median of the others; nothing where none was measured."""
    mine = [line for line in lines if line["benchmark"] == "gpu"]
    cells = [line for line in mine if line["measures"] == "throughput"]
    if not cells:
        return ""
    limit = _median(mine, "limit", "tflop_per_s", lambda line: True)
    rows = []
    for system in dict.fromkeys(line["system"] for line in cells):
        all_turns = [line for line in cells if line["system"] == system]
        first = next(line for line in all_turns if line["round"] == _FIRST_PASS)
        later = [line for line in all_turns if line["round"] != _FIRST_PASS]
        rate = statistics.median(line["tflop_per_s"] for line in later)
        rows.append(
            [
                system,
                f"{first['tokens_per_s']:,.0f}",
                f"{statistics.median(line['tokens_per_s'] for line in later):,.0f}",
                f"{rate / limit:.0%}",
                f"{min(line['least_cosine'] for line in all_turns):.5f}",
            ]
        )
    header = [
        cells[0]["gpu"]["name"],
        "first pass: tokens/s",
        "later ones: tokens/s",
        "of the limit",
        "least cosine",
    ]
    tokenizing = _median(mine, "tokenizing", "tokens_per_s", lambda line: True)
    turns = max(int(line["round"]) for line in cells)
    text = (
        f"{turns} turns after the first pass. The limit is {limit:,.0f} TFLOP/s of bfloat16 "
        f"products. {cells[0]['machine']['cores']} cores beside it tokenize {tokenizing:,.0f} "
        f"tokens/s. {_latencies(mine)} {_job(mine)}"
    )
    return f"{markdown(header, rows)}\n\n{text.strip()}"


def _latencies(lines: Sequence[Line]) -> str:
    return " ".join(
        f"{count} {'query takes' if count == 1 else 'queries together take'} "
        f"{_latency(lines, 'twofold, recorded', count):.1f} ms, "
        f"{_latency(lines, 'twofold', count):.1f} ms where forwards are not recorded."
        for count in sorted({line["queries"] for line in lines if line["measures"] == "latency"})
    )


def _job(lines: Sequence[Line]) -> str:
    return " ".join(
        f"The job, {line['documents']:,} documents in one actor: {line['tokens_per_s']:,.0f} "
        f"tokens/s from the first commit to the last, after {line['first_commit_s']:.0f} s."
        for line in lines
        if line["measures"] == "job"
    )


def _latency(lines: Sequence[Line], system: str, count: int) -> float:
    return _median(
        lines,
        "latency",
        "p50_ms",
        lambda line: (line["system"], line["queries"]) == (system, count),
    )


def _median(
    lines: Sequence[Line], measures: str, name: str, wanted: Callable[[Line], bool]
) -> float:
    found = (line[name] for line in lines if line["measures"] == measures and wanted(line))
    return float(statistics.median(found))
