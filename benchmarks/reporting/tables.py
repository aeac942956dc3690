"""Results as Markdown tables: encoder and job here, the others in modules of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.lines import Line, last_line
from benchmarks.reporting.endpoint import endpoint_table, traffic_table
from benchmarks.reporting.gpu import gpu_table
from benchmarks.reporting.headlines import headlines
from benchmarks.reporting.markdown import NONE, markdown, ratio
from benchmarks.reporting.results import (
    Cell,
    encoder_cells,
    job_results,
    latency_cells,
    limits,
)

__all__ = ["KIND_TITLES", "MODEL_TITLES", "TABLES"]

MODEL_TITLES = {
    "minilm": "all-MiniLM-L6-v2 (6 layers of 384, 256 tokens)",
    "noinstruct": "NoInstruct's architecture (12 layers of 384, 512 tokens, random weights)",
}
KIND_TITLES = {"queries": "queries", "descriptions": "descriptions", "long": "long documents"}
_SHOWN = 200
"""Last characters of why a system was left out."""


def _limit(lines: Sequence[Line]) -> str:
    found = limits(lines)
    if not found:
        return ""
    rows = [
        [dtype, *(f"{rates.get(dtype, 0):,.0f}" for rates in found.values())]
        + [f"{rates.get(dtype, 0) * 1e9 / flops:,.0f}" for flops, rates in found.items()]
        for dtype in next(iter(found.values()))
    ]
    shapes = [f"{flops / 1e6:.1f} MFLOP a token" for flops in found]
    header = ["precision", *(f"GFLOP/s, {shape}" for shape in shapes)]
    return markdown([*header, *(f"tokens/s at most, {shape}" for shape in shapes)], rows)


def _encoder(lines: Sequence[Line]) -> str:
    cells = encoder_cells(lines)
    parts = []
    for model in dict.fromkeys(cell.model for cell in cells):
        mine = [cell for cell in cells if cell.model == model]
        workloads = sorted(
            {(cell.texts, cell.documents) for cell in mine},
            key=lambda workload: (list(KIND_TITLES).index(workload[0]), workload[1]),
        )
        header = [MODEL_TITLES.get(model, model)]
        for kind, documents in workloads:
            title = f"{documents:,} {KIND_TITLES[kind]}" if documents else KIND_TITLES[kind]
            header += [f"{title}: tokens/s", "ours / it", "of the limit"]
        rows = [_encoder_row(found, workloads) for found in _by_system(mine)]
        parts.append(markdown([*header, "least cosine"], rows))
    return _with_left_out("\n\n".join(parts), lines, "encode")


def _by_system(cells: Sequence[Cell]) -> list[list[Cell]]:
    names = sorted(
        dict.fromkeys(cell.system for cell in cells),
        key=lambda name: -max(cell.value for cell in cells if cell.system == name),
    )
    return [[cell for cell in cells if cell.system == name] for name in names]


def _encoder_row(cells: Sequence[Cell], workloads: Sequence[tuple[str, int]]) -> list[str]:
    row = [cells[0].title]
    for workload in workloads:
        cell = next((cell for cell in cells if (cell.texts, cell.documents) == workload), None)
        if cell is None:
            row += [NONE] * 3
            continue
        share = NONE if cell.share_of_limit is None else f"{cell.share_of_limit:.0%}"
        row += [f"{cell.value:,.0f}", ratio(cell.ours_to_it), share]
    cosines = [cell.least_cosine for cell in cells if cell.least_cosine is not None]
    return [*row, f"{min(cosines):.5f}" if cosines else NONE]


def _with_left_out(table: str, lines: Sequence[Line], benchmark: str) -> str:
    """Return a table with what it lacks below it: who has no figure, and the end of what it said.

    Without its best cell of ours, a table compares with the next one.
    """
    mine = [line for line in lines if line["benchmark"] == benchmark]
    measured = {(line["model_name"], line["system"]) for line in mine if "versions" in line}
    said = {
        (line["model_name"], line["system"]): str(line["problem"]).strip().splitlines()[-1]
        for line in mine
        if line["measures"] == "left out"
    }
    missing = [
        f"{system} with {model} ({_end_of(problem)})"
        for (model, system), problem in said.items()
        if (model, system) not in measured
    ]
    return f"{table}\n\nLeft out: {'; '.join(missing)}." if table and missing else table


def _end_of(problem: str) -> str:
    """Return why, which stands behind the command that failed."""
    return problem if len(problem) <= _SHOWN else f"...{problem[-_SHOWN:]}"


def _latency(lines: Sequence[Line]) -> str:
    cells = latency_cells(lines)
    if not cells:
        return ""
    models = list(dict.fromkeys(cell.model for cell in cells))
    header = ["a lone query"]
    for model in models:
        header += [f"{model}: p50 ms", "it / ours"]
    rows = []
    for found in sorted(_by_system(cells), key=lambda each: each[0].value):
        row = [found[0].title]
        for model in models:
            cell = next((cell for cell in found if cell.model == model), None)
            row += [NONE] * 2 if cell is None else [f"{cell.value:.1f}", ratio(cell.ours_to_it)]
        rows.append(row)
    return markdown(header, rows)


def _job(lines: Sequence[Line]) -> str:
    results = job_results(lines)
    if not results:
        return ""
    rows = [
        [
            f"{result.place}, {result.model}: {result.title}",
            f"{result.documents:,}",
            str(result.turns),
            f"{result.start_s:.0f}",
            f"{result.wall_tokens_per_s:,.0f}",
            ratio(result.ours_to_it_wall),
            f"{result.marginal_tokens_per_s:,.0f}",
            ratio(result.ours_to_it_marginal),
        ]
        for result in results
    ]
    header = ["Parquet to Parquet", "documents", "turns", "50 documents: s", "whole run: tokens/s"]
    table = markdown([*header, "ours / it", "what comes after: tokens/s", "ours / it"], rows)
    whole = "\n\n".join(filter(None, (table, _stages(lines))))
    return _with_left_out(whole, lines, "job")


def _stages(lines: Sequence[Line]) -> str:
    """Return where our largest run's time went, as it accounts for it itself."""
    runs = [
        line
        for line in lines
        if (line["benchmark"], line["measures"]) == ("job", "run") and "seconds_by_stage" in line
    ]
    if not runs:
        return ""
    largest = max(runs, key=lambda line: int(line["documents"]))
    stages = sorted(largest["seconds_by_stage"].items(), key=lambda stage: -float(stage[1]))
    split = ", ".join(f"{name} {value:.1f}" for name, value in stages)
    return (
        f"Of the {largest['wall_s']:.0f} s that twofold took for {largest['documents']:,} "
        f"documents ({largest['place']}, {largest['model_name']}), {largest['first_commit_s']:.0f} "
        f"s went by until the first shard; its actor's seconds by stage, which overlap: {split}."
    )


def _loop(lines: Sequence[Line]) -> str:
    found = last_line(lines, "embed", "summary")
    if found is None:
        return ""
    lowest, highest = found["job_to_bare_range"]
    header = [f"{found['runs']} pairs, medians", "tokens/s", "padding", "memory, MB"]
    bare, actor, driver = (
        f"{found[name] / 1e6:,.0f}"
        for name in ("bare_peak_rss_bytes", "job_actor_peak_rss_bytes", "job_driver_peak_rss_bytes")
    )
    rows = [
        [title, f"{found[rate]:,.0f}", f"{found[padding]:.1%}", memory]
        for title, rate, padding, memory in (
            ("the bare loop", "bare_tokens_per_s", "bare_padding_waste", bare),
            (
                "the job, first to last commit",
                "job_tokens_per_s",
                "job_padding_waste",
                f"{actor} (actor), {driver} (driver)",
            ),
        )
    ]
    return (
        f"{markdown(header, rows)}\n\nJob over bare loop, median of the pairs: "
        f"{found['job_to_bare']:.2f} ({lowest:.2f} to {highest:.2f})."
    )


TABLES: dict[str, Callable[[Sequence[Line]], str]] = {
    "headlines": headlines,
    "limit": _limit,
    "encoder": _encoder,
    "latency": _latency,
    "job": _job,
    "loop": _loop,
    "endpoint": endpoint_table,
    "traffic": traffic_table,
    "gpu": gpu_table,
}
"""Name of a table, as its markers have it, and what makes it; empty where nothing was measured."""
