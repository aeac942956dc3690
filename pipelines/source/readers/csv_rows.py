"""CSV with a header line: quoted newlines, doubled quotes, UTF-8 with or without a mark."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from encoder.errors import InvalidInputError
from pipelines.errors import UnreadableSourceError
from pipelines.source.readers.files import open_stream
from pipelines.source.readers.raw_row import MAX_LINE_BYTES, RawRow
from pipelines.source.text_rules import has_surrogate
from pipelines.source.units import Source

if TYPE_CHECKING:
    from _csv import Reader

__all__ = ["read_csv", "read_csv_header"]

_FATAL = ("unexpected end of data", "field larger than field limit")
"""csv's words for a quote that is never closed; where rows begin after it cannot be known."""


def read_csv_header(source: Source) -> list[str] | None:
    """Return the column names of a file, or None where it is empty.

    Raises:
        InvalidInputError: The first line is no header.
    """
    with _open_reader(source) as reader:
        return _header(reader, source)


def read_csv(source: Source, names: Sequence[str]) -> Iterator[RawRow]:
    """Yield the rows of a file as strings.

    Args:
        source: The file.
        names: Columns to read.

    Raises:
        InvalidInputError: The header lacks a column, or holds it twice.
        UnreadableSourceError: A quote is not closed before the end of the file.
    """
    with _open_reader(source) as reader:
        header = _header(reader, source)
        if header is None:
            return
        positions = {name: _position(header, name, source) for name in names}
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if str(error).startswith(_FATAL):
                    raise _unclosed(source, line) from error
                yield RawRow(problem="row is not valid CSV")
                continue
            yield _row(fields, positions, len(header))


def _row(fields: list[str], positions: dict[str, int], expected: int) -> RawRow:
    if not fields:
        return RawRow(problem="row is empty")
    if len(fields) != expected:
        which = "few" if len(fields) < expected else "many"
        return RawRow(problem=f"row has too {which} fields")
    values: dict[str, object] = {name: fields[at] for name, at in positions.items()}
    # `surrogateescape` makes lone surrogates of bytes that are not UTF-8.
    if any(has_surrogate(field) for field in fields):
        return RawRow(values, problem="row is not valid UTF-8")
    return RawRow(values, sum(len(field) for field in fields))


@contextmanager
def _open_reader(source: Source) -> Iterator[Reader]:
    csv.field_size_limit(MAX_LINE_BYTES)  # 128 KiB unless told
    with io.TextIOWrapper(
        open_stream(source), encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as text:
        yield csv.reader(_lines(text, source), strict=True)


def _lines(text: io.TextIOWrapper, source: Source) -> Iterator[str]:
    number = 0
    while line := text.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(("\n", "\r")):
            raise UnreadableSourceError(
                f"{source.uri}: line {number} is longer than {MAX_LINE_BYTES // 2**20} MiB;"
                " replace the file, or give --on-invalid reject"
            )
        yield line


def _header(reader: Reader, source: Source) -> list[str] | None:
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise _unclosed(source, 1) from error
    if header is not None and not any(name.strip() for name in header):
        raise InvalidInputError(f"{source.uri}: expected a header line, found an empty first line")
    return header


def _position(header: list[str], name: str, source: Source) -> int:
    if header.count(name) != 1:
        found = "it twice" if name in header else ", ".join(map(repr, header))
        raise InvalidInputError(f"{source.uri}: expected a column {name!r}, found {found}")
    return header.index(name)


def _unclosed(source: Source, line: int) -> UnreadableSourceError:
    return UnreadableSourceError(
        f"{source.uri}: the row that begins on line {line} has a quote that is not closed;"
        " correct the file, or give --on-invalid reject"
    )
