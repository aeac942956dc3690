"""Results as SVG, drawn by hand: the same lines give the same bytes, and no library is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from operator import attrgetter

from benchmarks.lines import Line
from benchmarks.reporting.results import encoder_cells, job_results, latency_cells
from benchmarks.reporting.tables import KIND_TITLES, MODEL_TITLES

__all__ = ["PLOTS", "Bar", "bar_chart"]

_WIDTH, _LABEL_WIDTH, _BAR_WIDTH = 860, 330, 420
_BAR_HEIGHT, _GAP, _TITLE_HEIGHT, _MARGIN = 18, 6, 34, 12
_OURS, _THEIRS, _TEXT, _PAPER = "#0b6bcb", "#a3acb9", "#1f2328", "#ffffff"


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: What stands left of it.
        value: Its length.
        shown: What stands right of it.
        is_ours: Whether it stands out.
    """

    label: str
    value: float
    shown: str
    is_ours: bool


def bar_chart(panels: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Return an SVG of panels below each other, each with a title and a scale of its own."""
    parts: list[str] = []
    top = float(_MARGIN)
    for title, bars in panels:
        top += _TITLE_HEIGHT
        parts.append(_text(_MARGIN, top - 12, title, weight="bold"))
        longest = max((bar.value for bar in bars), default=1.0)
        for bar in bars:
            width = _BAR_WIDTH * bar.value / longest
            color = _OURS if bar.is_ours else _THEIRS
            base = top + _BAR_HEIGHT - 5
            parts += [
                _text(_LABEL_WIDTH - 8, base, bar.label, anchor="end"),
                f'<rect x="{_LABEL_WIDTH}" y="{top:.0f}" width="{width:.1f}" '
                f'height="{_BAR_HEIGHT}" fill="{color}"/>',
                _text(_LABEL_WIDTH + width + 6, base, bar.shown),
            ]
            top += _BAR_HEIGHT + _GAP
    height = top + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
            f'width="{_WIDTH}" height="{height:.0f}" font-family="sans-serif" font-size="12">',
            f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, content: str, *, anchor: str = "start", weight: str = "") -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_TEXT}"{bold}>'
        f"{escape(content)}</text>"
    )


def _encoder(lines: Sequence[Line]) -> str:
    panels = []
    key = attrgetter("model", "texts", "documents")
    for (model, texts, documents), found in groupby(sorted(encoder_cells(lines), key=key), key):
        bars = [
            Bar(cell.title, cell.value, f"{cell.value:,.0f}", cell.system.startswith("twofold"))
            for cell in sorted(found, key=lambda cell: -cell.value)
        ]
        title = f"{documents:,} {KIND_TITLES[texts]}" if documents else KIND_TITLES[texts]
        panels.append((f"{MODEL_TITLES.get(model, model)}: tokens/s, {title}", bars))
    return bar_chart(panels) if panels else ""


def _latency(lines: Sequence[Line]) -> str:
    cells = latency_cells(lines)
    panels = []
    for model in dict.fromkeys(cell.model for cell in cells):
        found = sorted((cell for cell in cells if cell.model == model), key=lambda c: c.value)
        bars = [
            Bar(cell.title, cell.value, f"{cell.value:.1f}", cell.system.startswith("twofold"))
            for cell in found
        ]
        panels.append((f"{MODEL_TITLES.get(model, model)}: a lone query, p50 ms", bars))
    return bar_chart(panels) if panels else ""


def _job(lines: Sequence[Line]) -> str:
    panels = []
    for cell, results in groupby(job_results(lines), attrgetter("documents", "place", "model")):
        documents, place, model = cell
        bars = [
            Bar(
                result.title,
                result.wall_tokens_per_s,
                f"{result.wall_tokens_per_s:,.0f}",
                result.system == "twofold",
            )
            for result in results
        ]
        what = f"{documents:,} documents, {place}, {model}"
        panels.append((f"The job, {what}: tokens/s, start included", bars))
    return bar_chart(panels) if panels else ""


PLOTS: dict[str, Callable[[Sequence[Line]], str]] = {
    "encoder": _encoder,
    "latency": _latency,
    "job": _job,
}
"""Name of a plot's file and what draws it; empty where nothing was measured."""
