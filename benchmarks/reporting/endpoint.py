"""The lines of `benchmarks.serve` as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.lines import Line, last_line
from benchmarks.reporting.markdown import NONE, markdown, number

__all__ = ["endpoint_table", "traffic_table"]


def endpoint_table(lines: Sequence[Line]) -> str:
    """Return `benchmarks.serve`'s figures and ratios; empty where nothing was measured."""
    found = last_line(lines, "serve", "summary")
    if found is None:
        return ""
    columns = (("1", "p50_ms", 1), ("16", "requests_per_s", 0), ("64", "requests_per_s", 0))
    titles = {
        "echo": "an empty Serve application, same mode",
        "bare": "the bare encoder, as many a call",
    }
    medians: Mapping[str, Line] = found["medians"]
    rows = [
        [
            titles.get(system, system),
            *(
                number(medians[system].get(connections, {}).get(figure), digits)
                for connections, figure, digits in columns
            ),
        ]
        for system in sorted(medians, key=lambda system: -_at_64(medians[system]))
    ]
    header = ["connections: figure", "1: p50 ms", "16: requests/s", "64: requests/s"]
    ratios = "\n".join(
        f"- {name.replace('_', ' ')}: {ratio['median']:.2f} "
        f"({ratio['range'][0]:.2f} to {ratio['range'][1]:.2f})"
        for name, ratio in found["ratios"].items()
    )
    parts = [
        markdown(header, rows),
        _arrivals(found),
        f"Ours over theirs in the same round, median of {found['rounds']} rounds and range:",
        ratios,
        _not_answered(lines),
        *(f"Left out: {who} ({why})." for who, why in found.get("left_out", {}).items()),
        _noise(found),
    ]
    return "\n\n".join(filter(None, parts))


def _arrivals(found: Line) -> str:
    """Return the open loops: queries that arrive at a rate, whatever is answered."""
    medians: Mapping[str, Mapping[str, Line]] = found.get("open_loop_medians", {})
    rates = sorted({rate for cells in medians.values() for rate in cells}, key=float)
    rows = []
    for system in sorted(medians, key=lambda system: -_at_64(found["medians"].get(system, {}))):
        cells = [medians[system].get(rate, {}) for rate in rates]
        times = ((cell.get("p50_ms"), cell.get("p99_ms")) for cell in cells)
        rows.append([system, *(number(time, 1) for pair in times for time in pair)])
    header = ["queries arrive at a rate"]
    header += [f"{rate}/s: {time} ms" for rate in rates for time in ("p50", "p99")]
    return markdown(header, rows) if rows else ""


def _at_64(cells: Mapping[str, Any]) -> float:
    return float(cells.get("64", {}).get("requests_per_s") or 0)


def _not_answered(lines: Sequence[Line]) -> str:
    """Return who did not answer how many requests of its closed loops."""
    counts: dict[str, tuple[int, int]] = {}
    for line in lines:
        if (line["benchmark"], line["measures"]) == ("serve", "closed loop"):
            who = f"{line['system']} {line['engine'] or ''}".strip()
            failed, sent = counts.get(who, (0, 0))
            counts[who] = failed + int(line["errors"]), sent + int(line["requests"])
    said = [f"{who} {failed:,} of {sent:,}" for who, (failed, sent) in counts.items() if failed]
    return f"Requests without a vector, which no figure counts: {', '.join(said)}." if said else ""


def _noise(found: Line) -> str:
    """Return how busy the machine was before a run: above a few tenths, others were at work."""
    load, cores = found.get("load_average_before"), found.get("machine", {}).get("cores")
    return "" if load is None else f"Load average before the run: {load:g} on {cores} cores."


def traffic_table(lines: Sequence[Line]) -> str:
    """Return what `--traffic` measured: rates up to the knee, and documents beside queries."""
    found = last_line(lines, "serve", "traffic summary")
    if found is None:
        return ""
    rows = []
    for share, cells in _cells_of(lines, "rate", "share_of_knee").items():
        rows.append([f"{share:.0%} of the knee", *_medians(cells), NONE, NONE])
    for connections, cells in _cells_of(
        lines, "queries beside documents", "document_connections"
    ).items():
        if connections:
            beside = f"25%, documents over {connections:.0f} connection{'s'[: connections > 1]}"
            of_documents = [cell["documents"] for cell in cells]
            per_s = median(float(cell["documents_per_s"]) for cell in of_documents)
            row = [beside, *_medians(cells), f"{per_s:,.0f}", _refused(of_documents)]
            rows.append(row)
    header = ["queries arrive", "answered/s", "p50 ms", "p99 ms", "refused"]
    header += ["documents/s", "their requests refused"]
    return (
        f"{markdown(header, rows)}\n\nThe knee: {found['knee_connections']} connections, "
        f"{found['knee']['requests_per_s']:,.0f} requests/s, p99 {found['knee']['p99_ms']:.0f} ms. "
        f"Medians of {found['rounds']} turns; a request of documents has 16 of them. "
        f"{_noise(found)}".rstrip()
    )


def _cells_of(lines: Sequence[Line], measures: str, by: str) -> dict[float, list[Line]]:
    cells: dict[float, list[Line]] = {}
    for line in lines:
        if (line["benchmark"], line["measures"]) == ("serve", measures):
            cells.setdefault(float(line[by]), []).append(line)
    return cells


def _medians(cells: Sequence[Line]) -> list[str]:
    """Return the medians of rate, p50 and p99, and the share that was refused."""
    figures = ("requests_per_s", "p50_ms", "p99_ms")
    return [*(number(_median(cells, figure)) for figure in figures), _refused(cells)]


def _median(cells: Sequence[Line], figure: str) -> float | None:
    values = [float(cell[figure]) for cell in cells if cell[figure] is not None]
    return median(values) if values else None


def _refused(cells: Sequence[Line]) -> str:
    """Return the share of requests that got no vector, whatever else they got."""
    return f"{median(float(cell['errors']) / float(cell['requests']) for cell in cells):.0%}"
