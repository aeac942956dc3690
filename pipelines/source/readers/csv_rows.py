"""CSV with a header line: quoted newlines, doubled quotes, UTF-8 with or without a mark."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from encoder.errors import InvalidInputError
from pipelines.errors import UnreadableSourceError
from pipelines.source.corpus_columns import shown_names
from pipelines.source.readers.files import open_stream, translated
from pipelines.source.readers.raw_row import MAX_LINE_BYTES, RawRow
from pipelines.source.text_rules import has_surrogate
from pipelines.source.units import Source

__all__ = ["read_csv", "read_csv_header"]

_FATAL = ("unexpected end of data", "field larger than field limit")
"""csv's words for a quote that is never closed; where rows begin after it cannot be known."""


def read_csv_header(source: Source) -> list[str] | None:
    """Return the column names of a file, or None where it is empty.

    Raises:
        InvalidInputError: The first line is no header.
        UnreadableSourceError: The file breaks before its end.
        SourceChangedError: The file is gone or was replaced.
    """
    try:
        with _open_rows(source) as rows:
            return _header(rows, source)
    except (pa.ArrowException, OSError) as error:
        raise translated(error, source.uri, rows_before=None) from error


def read_csv(source: Source, names: Sequence[str]) -> Iterator[RawRow]:
    """Yield the rows of a file as strings.

    Args:
        source: The file.
        names: Columns to read.

    Raises:
        InvalidInputError: The header lacks a column, or holds it twice.
        UnreadableSourceError: A quote is not closed before the end of the file, or a row is longer
            than `MAX_LINE_BYTES`.
    """
    with _open_rows(source) as rows:
        header = _header(rows, source)
        if header is None:
            return
        positions = {name: _position(header, name, source) for name in names}
        while True:
            line = rows.line_num + 1
            try:
                fields = next(rows)
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
def _open_rows(source: Source) -> Iterator[_Rows]:
    csv.field_size_limit(MAX_LINE_BYTES)  # 128 KiB unless told
    with io.TextIOWrapper(
        open_stream(source), encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as text:
        yield _Rows(text, source)


class _Rows:
    """The rows of a file, which may have many lines each: of none more is read than of a line."""

    def __init__(self, text: io.TextIOWrapper, source: Source) -> None:
        self._text = text
        self._source = source
        self._reader = csv.reader(self._lines(), strict=True)
        self._row_length = 0

    @property
    def line_num(self) -> int:
        return self._reader.line_num

    def __iter__(self) -> _Rows:
        return self

    def __next__(self) -> list[str]:
        self._row_length = 0
        return next(self._reader)

    def _lines(self) -> Iterator[str]:
        number = 0
        while line := self._text.readline(MAX_LINE_BYTES + 1):
            number += 1
            self._row_length += len(line)
            if self._row_length > MAX_LINE_BYTES:
                raise UnreadableSourceError(
                    f"{self._source.uri}: the row on line {number} is longer than"
                    f" {MAX_LINE_BYTES // 2**20} MiB; replace the file, or give --on-invalid reject"
                )
            yield line


def _header(rows: _Rows, source: Source) -> list[str] | None:
    try:
        header = next(rows, None)
    except csv.Error as error:
        raise _unclosed(source, 1) from error
    if header is not None and not any(name.strip() for name in header):
        raise InvalidInputError(f"{source.uri}: expected a header line, found an empty first line")
    return header


def _position(header: list[str], name: str, source: Source) -> int:
    if header.count(name) != 1:
        found = "it twice" if name in header else shown_names(header)
        raise InvalidInputError(f"{source.uri}: expected a column {name!r}, found {found}")
    return header.index(name)


def _unclosed(source: Source, line: int) -> UnreadableSourceError:
    return UnreadableSourceError(
        f"{source.uri}: the row that begins on line {line} has a quote that is not closed;"
        " correct the file, or give --on-invalid reject"
    )
