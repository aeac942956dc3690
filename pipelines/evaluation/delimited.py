"""Columns of a delimited text file: CSV, tab-separated, with or without a header.

Everything that is wrong with a file is one line that names the file and the line. Knows nothing of
what the columns mean.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from encoder.errors import InvalidInputError, one_line
from pipelines.errors import UnreadableSourceError
from pipelines.source.listing import open_filesystem
from pipelines.source.readers.raw_row import MAX_LINE_BYTES
from pipelines.storage import STORE_ERRORS

__all__ = ["Row", "Separator", "read_columns"]


class Separator(StrEnum):
    """What stands between two columns."""

    TAB = "tab"
    COMMA = "comma"

    @property
    def character(self) -> str:
        """The character itself."""
        return "\t" if self is Separator.TAB else ","


class Row(NamedTuple):
    """The values of the columns that were asked for, and where they stand.

    Attributes:
        place: File and line, for messages.
        values: In the order in which the columns were asked for.
    """

    place: str
    values: tuple[str, ...]


def read_columns(
    uri: str, columns: Sequence[str], *, separator: Separator, quoted: bool
) -> list[Row]:
    """Read columns of a delimited file; blank lines are no rows.

    Args:
        uri: Local path or fsspec URI; .gz, .bz2 and .xz are decompressed.
        columns: Names, which the first line must hold; or positions from 1, where the file has no
            header.
        separator: What stands between columns.
        quoted: Whether double quotes enclose values (RFC 4180); otherwise they are text.

    Raises:
        InvalidInputError: A column is missing, a line has another number of columns than the
            header (or, without one, too few), there is no row, or the protocol is unknown.
        UnreadableSourceError: The file cannot be read to its end as UTF-8.
    """
    fs, path = open_filesystem(uri)
    csv.field_size_limit(MAX_LINE_BYTES)  # 128 KiB unless told
    try:
        with fs.open(path, "rt", encoding="utf-8-sig", newline="", compression="infer") as stream:
            reader = csv.reader(
                stream,
                delimiter=separator.character,
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
                strict=True,
            )
            lines = ((f"{uri}, line {reader.line_num}", line) for line in reader if line)
            rows = list(_pick(lines, uri, columns))
    except (*STORE_ERRORS, UnicodeDecodeError, csv.Error, EOFError, ValueError) as error:
        raise UnreadableSourceError(
            f"expected a readable UTF-8 file of {separator.value}-separated columns, "
            f"found {uri}: {one_line(error)}"
        ) from error
    if not rows:
        raise InvalidInputError(f"expected rows in {uri}, found none")
    return rows


def _pick(
    lines: Iterator[tuple[str, list[str]]], uri: str, columns: Sequence[str]
) -> Iterator[Row]:
    if all(column.isdecimal() and int(column) > 0 for column in columns):
        positions = [int(column) - 1 for column in columns]
        least, most, expected = max(positions) + 1, sys.maxsize, "at least "
    else:
        _, header = next(lines, (uri, []))
        positions = [_position(uri, header, column) for column in columns]
        # One more is a separator inside a text: everything behind it stands in another column.
        least, most, expected = len(header), len(header), ""
    for place, line in lines:
        if not least <= len(line) <= most:
            raise InvalidInputError(
                f"expected {expected}{least} columns, found {len(line)} in {place}; correct the "
                "line, or say which columns, which separator and whether values are quoted"
            )
        yield Row(place, tuple(line[position] for position in positions))


def _position(uri: str, header: Sequence[str], column: str) -> int:
    if header.count(column) != 1:
        raise InvalidInputError(
            f"expected one column {column!r} in the first line of {uri}, found "
            f"{', '.join(map(repr, header[:10])) or 'nothing'}; name others, or give positions "
            "from 1 where the file has no header"
        )
    return header.index(column)
