"""A row as a row-wise reader hands it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["MAX_LINE_BYTES", "RawRow"]

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is not a row of text but a file of another kind; memory stays bounded."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row's values by column name, or why it could not be read.

    Attributes:
        values: What the parser gave; empty where `problem` is set.
        size_bytes: About how much memory the values take.
        problem: Why the row has no values; "" where it has.
    """

    values: Mapping[str, object] = field(default_factory=dict)
    size_bytes: int = 0
    problem: str = ""
