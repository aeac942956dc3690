r"""JSON lines and plain text, whole files or byte ranges of them.

A line belongs to the range in which its first byte lies; only "\n" ends a line ("\r\n" too), and
what follows the last newline is a line if it is not empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

from pipelines.source.readers.files import open_stream
from pipelines.source.readers.raw_row import MAX_LINE_BYTES, RawRow
from pipelines.source.units import Source

__all__ = ["read_jsonl", "read_lines", "read_text"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TOO_LONG = f"line is longer than {MAX_LINE_BYTES // 2**20} MiB"


def read_lines(
    source: Source, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, bytes | None]]:
    """Yield (offset of the first byte, line without its newline) of the lines of a byte range.

    A line longer than `MAX_LINE_BYTES` is None. Offsets count decompressed bytes.

    Args:
        source: The file.
        start: First byte of the range; only an uncompressed file can start elsewhere than at 0.
        stop: One past the last byte of the range, None for the end of the file.
    """
    with open_stream(source) as stream:
        offset = _first_line_start(stream, start, stop)
        while stop is None or offset < stop:
            line, length = _next_line(stream)
            if length == 0:
                return
            yield offset, _without_mark(line) if offset == 0 else line
            offset += length


def read_jsonl(source: Source, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
    """Yield the rows of a byte range of a file of one JSON object a line."""
    for _, line in read_lines(source, start, stop):
        yield RawRow(problem=_TOO_LONG) if line is None else _json_row(line)


def read_text(
    source: Source, id_column: str, text_column: str, start: int = 0, stop: int | None = None
) -> Iterator[RawRow]:
    """Yield the lines of a byte range as rows whose id is `uri:offset`."""
    for offset, line in read_lines(source, start, stop):
        name = f"{source.uri}:{offset}"
        if line is None:
            yield RawRow(values={id_column: name}, problem=_TOO_LONG)
            continue
        try:
            yield RawRow({id_column: name, text_column: line.decode()}, len(line))
        except UnicodeDecodeError:
            yield RawRow(values={id_column: name}, problem="line is not valid UTF-8")


def _first_line_start(stream: IO[bytes], start: int, stop: int | None) -> int:
    """Move to the first line that begins at or after `start`; return its offset (or >= stop)."""
    if start == 0:
        return 0
    # From one byte before: if that is a newline, a line begins at `start` itself.
    stream.seek(start - 1)
    offset = start - 1
    # A line that spans the whole range is read to the end of the range, no further.
    while stop is None or offset < stop - 1:
        limit = MAX_LINE_BYTES if stop is None else min(MAX_LINE_BYTES, stop - 1 - offset)
        piece = stream.readline(limit)
        offset += len(piece)
        if not piece or piece.endswith(b"\n"):
            return offset
    return offset + 1


def _next_line(stream: IO[bytes]) -> tuple[bytes | None, int]:
    """Return (line without its newline or None if too long, its length with the newline)."""
    line = stream.readline(MAX_LINE_BYTES)
    length = len(line)
    if length < MAX_LINE_BYTES or line.endswith(b"\n"):
        return line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(
            b"\n"
        ) else line, length
    while piece := stream.readline(MAX_LINE_BYTES):
        length += len(piece)
        if piece.endswith(b"\n"):
            break
    return None, length


def _without_mark(line: bytes | None) -> bytes | None:
    return None if line is None else line.removeprefix(_BYTE_ORDER_MARK)


def _json_row(line: bytes) -> RawRow:
    if not line.strip():
        return RawRow(problem="line is empty")
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError:
        return RawRow(problem="line is not valid UTF-8")
    except (ValueError, RecursionError):
        return RawRow(problem="line is not valid JSON")
    if not isinstance(values, dict):
        return RawRow(problem="line is not a JSON object")
    return RawRow(values, len(line))
