"""Columns of a delimited text file: CSV, tab-separated, with or without a header.

Everything that is wrong with a file is one line that names the file and the line. Knows nothing of
what the columns mean.
"""

from __future__ import annotations

import csv
import io
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import IO, NamedTuple

from fsspec.compression import compr
from fsspec.utils import infer_compression

from encoder.errors import InvalidInputError, one_line
from pipelines.errors import UnreadableSourceError
from pipelines.source.listing import is_local, open_filesystem
from pipelines.source.readers.raw_row import MAX_LINE_BYTES
from pipelines.store_client import RemoteFile, client_errors

__all__ = ["Row", "Separator", "read_columns"]

_DAMAGE = (
    *(OSError, EOFError, ValueError, csv.Error),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
"""What reading raises: of the disk, of the text, of the compressed bytes."""


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
        UnreadableSourceError: The file is missing, or cannot be read to its end as UTF-8.
        StorageError: The store or disk did not answer, or refused.
    """
    csv.field_size_limit(MAX_LINE_BYTES)  # 128 KiB unless told
    try:
        with _opened(uri) as stream:
            reader = csv.reader(
                stream,
                delimiter=separator.character,
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
                strict=True,
            )
            lines = ((f"{uri}, line {reader.line_num}", line) for line in reader if line)
            rows = list(_pick(lines, uri, columns))
    except _DAMAGE as error:
        raise UnreadableSourceError(
            f"expected a readable UTF-8 file of {separator.value}-separated columns, "
            f"found {uri}: {one_line(error)}"
        ) from error
    if not rows:
        raise InvalidInputError(f"expected rows in {uri}, found none")
    return rows


def _opened(uri: str) -> IO[str]:
    fs, path = open_filesystem(uri)
    with client_errors("read", uri):
        stored = fs.open(path, "rb")
    file = stored if is_local(uri) else io.BufferedReader(RemoteFile(stored, uri))
    compression = infer_compression(path)
    unpacked = compr[compression](file, mode="rb") if compression else file
    return io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="")


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
