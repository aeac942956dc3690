"""Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NONE", "markdown", "number", "ratio"]

NONE = "-"
"""What stands where nothing was measured."""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns after the first are numbers."""
    marks = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, marks, *rows))


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with its thousands apart, or `NONE`."""
    return NONE if value is None else f"{value:,.{digits}f}"


def ratio(value: float | None) -> str:
    """Return a ratio with two digits, or `NONE`."""
    return number(value, 2)
