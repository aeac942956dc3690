"""What a reader wants to know first: ours beside what they would use instead, in one table."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.lines import Line, last_line
from benchmarks.reporting.markdown import markdown, number, ratio
from benchmarks.reporting.results import OUR_ENCODERS, OUR_JOB, Cell, encoder_cells, job_results

__all__ = ["headlines"]

_MODEL, _TEXTS, _PLACE = "noinstruct", "descriptions", "s3"
"""The rows are of one model, so that encoder, job and endpoint can be set beside each other."""
_SCRIPT = "ray-data"
"""What a user of Ray writes today, and the other side of the job's row."""
_LONE, _PEER = "p50_at_1_to_infinitys_best", "infinity"


def headlines(lines: Sequence[Line]) -> str:
    """Return the table, of what was measured of it; empty where nothing was."""
    rows = [*_encoder_rows(lines), *_job_rows(lines), *_endpoint_rows(lines)]
    header = ["", "twofold", "the other", "twofold / the other"]
    return markdown(header, rows) if rows else ""


def _encoder_rows(lines: Sequence[Line]) -> list[list[str]]:
    cells = [cell for cell in encoder_cells(lines) if (cell.model, cell.texts) == (_MODEL, _TEXTS)]
    most = max((cell.documents for cell in cells), default=0)
    largest = [cell for cell in cells if cell.documents == most]
    ours = _ours(largest)
    return [
        [
            f"encoder, {most:,} descriptions, tokens/s: {cell.title}",
            number(ours.value),
            number(cell.value),
            ratio(cell.ours_to_it),
        ]
        for cell in sorted(largest, key=lambda cell: -cell.value)
        if ours is not None and not cell.system.startswith("twofold")
    ]


def _ours(cells: Sequence[Cell]) -> Cell | None:
    by_system = {cell.system: cell for cell in cells}
    return next((by_system[name] for name in OUR_ENCODERS if name in by_system), None)


def _job_rows(lines: Sequence[Line]) -> list[list[str]]:
    results = [
        result for result in job_results(lines) if (result.model, result.place) == (_MODEL, _PLACE)
    ]
    ours = next((result for result in results if result.system == OUR_JOB), None)
    return [
        [
            f"job, {result.documents:,} documents from S3 to S3, tokens/s: {result.title}",
            number(ours.wall_tokens_per_s),
            number(result.wall_tokens_per_s),
            ratio(result.ours_to_it_wall),
        ]
        for result in results
        if ours is not None and result.system == _SCRIPT
    ]


def _endpoint_rows(lines: Sequence[Line]) -> list[list[str]]:
    found = last_line(lines, "serve", "summary")
    if found is None:
        return []
    medians, ratios = found["medians"], found["ratios"]
    rows = []
    for system in medians:
        name = f"requests_per_s_at_64_to_{system.replace(' ', '_')}"
        if name in ratios:
            rates = (_of(medians, each, "64", "requests_per_s") for each in ("twofold", system))
            row = [f"endpoint, 64 connections, requests/s: {system}", *map(number, rates)]
            rows.append([*row, ratio(ratios[name]["median"])])
    if _LONE in ratios:
        times = {name: _of(medians, name, "1", "p50_ms") for name in medians if _PEER in name}
        best = min(time for time in times.values() if time is not None)
        row = ["endpoint, one connection, p50 ms (lower is better): infinity, its faster engine"]
        row += [number(time, 1) for time in (_of(medians, "twofold", "1", "p50_ms"), best)]
        rows.append([*row, ratio(ratios[_LONE]["median"])])
    return rows


def _of(medians: Line, system: str, connections: str, figure: str) -> float | None:
    value = medians[system].get(connections, {}).get(figure)
    return None if value is None else float(value)
