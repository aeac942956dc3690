"""Opening source files as streams, and telling a damaged file from a store that does not answer.

A file that is gone or was replaced is `SourceChangedError` (the plan is out of date), bytes that
cannot be decoded are `UnreadableSourceError`, and anything else says nothing about the file: what a
store's client raises is a `StorageError`, a disk's OSError stays what it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq
from s3fs.utils import FileExpired

from encoder.errors import InvalidInputError
from pipelines.errors import SourceChangedError, UnreadableSourceError
from pipelines.source.listing import is_local, open_filesystem
from pipelines.source.units import Source
from pipelines.store_client import RemoteFile, client_errors

__all__ = ["STREAM_BLOCK_BYTES", "guarded", "open_parquet", "open_stream", "translated"]

STREAM_BLOCK_BYTES = 4 * 2**20
"""Read ahead of a remote stream: a request a block."""
_COLUMN_BUFFER_BYTES = 4 * 2**20
"""Parquet reads a column chunk through a buffer of this size, so a row group is never held whole;
remotely it is the size of a request."""
_RANDOM_BLOCK_BYTES = 64 * 2**10
"""Read ahead of a remote Parquet file, whose columns are read in turns, so more
would be thrown away."""
_BUFFER_BYTES = 2**20
_UNPACKED_BUFFER_BYTES = 8 * 2**10
"""Decompressed bytes asked for at once: of a truncated file no more than these are lost before the
cut. Lines come at 115 MB/s from gzip and 320 from zstd; reads of 1 MiB give 120 and 470, and
parsing JSON takes longer than either."""

Item = TypeVar("Item")


@contextmanager
def open_parquet(source: Source) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; its footer is read, its pages are streamed.

    Raises:
        UnreadableSourceError: The footer is missing or damaged.
        SourceChangedError: The file is gone or was replaced.
    """
    try:
        raw = _open_random(source)
        file = _parquet_file(raw)
    except (pa.ArrowException, OSError) as error:
        raise translated(error, source.uri, rows_before=None) from error
    with raw, file:
        yield file


def _parquet_file(raw: IO[bytes]) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            raw,
            buffer_size=_COLUMN_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )
    except (TypeError, ValueError) as error:
        # A name that is not UTF-8, or metadata that a registered extension type cannot take.
        raise pa.ArrowInvalid(str(error)) from error


def open_stream(source: Source) -> IO[bytes]:
    """Open a file as a stream of its decompressed bytes; it can be sought only if uncompressed."""
    if source.compression is None:
        if is_local(source.uri):
            return Path(source.uri).open("rb", buffering=_BUFFER_BYTES)
        return io.BufferedReader(_open_remote(source, STREAM_BLOCK_BYTES), _BUFFER_BYTES)
    if is_local(source.uri):
        packed = pa.OSFile(source.uri, "rb")
    else:
        packed = pa.PythonFile(_open_remote(source, STREAM_BLOCK_BYTES), mode="r")
    # Arrow's decompressors go over several gzip members and zstd frames and, unlike zstandard's
    # stream_reader, raise where the last one is cut off.
    unpacked = pa.CompressedInputStream(packed, source.compression)
    return cast("IO[bytes]", io.BufferedReader(unpacked, _UNPACKED_BUFFER_BYTES))


def guarded(
    items: Iterator[Item], label: str, rows_of: Callable[[Item], int], first_row: int = 0
) -> Iterator[Item]:
    """Yield the items of a reader; say where a file broke when it raises.

    Args:
        items: What a reader yields.
        label: The unit, as a user reads it.
        rows_of: Rows in an item.
        first_row: Position in the unit of the first item's first row.

    Raises:
        UnreadableSourceError: The rest of the file cannot be decoded; the message says after how
            many rows of the unit.
        SourceChangedError: The file is gone or was replaced.
    """
    rows = first_row
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise translated(error, label, rows_before=rows) from error
        rows += rows_of(item)
        yield item


def translated(error: Exception, label: str, rows_before: int | None) -> Exception:
    """Return the error to raise for one that a file's reader met: the same one if not the file's.

    Args:
        error: What was raised.
        label: The file or unit.
        rows_before: Rows of the unit that were read before it; None when it was opened.
    """
    # FileExpired: another ETag than when the file was opened. Its errno, EBUSY, is also that of a
    # store that asks to slow down.
    if isinstance(error, (FileNotFoundError, FileExpired)):
        return SourceChangedError(f"{label}: gone or replaced since it was planned")
    if not _is_decoding(error):
        return error
    where = "when opened" if rows_before is None else f"after row {rows_before} of the unit"
    cause = " ".join(str(error).split()).rstrip(".")
    return UnreadableSourceError(
        f"{label}: cannot be read {where}: {cause}; replace the file, or give --on-invalid reject"
    )


def _is_decoding(error: Exception) -> bool:
    """Return whether the bytes are at fault: Arrow's OSErrors carry no errno, a disk's do."""
    if isinstance(error, MemoryError):
        return False
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


def _open_random(source: Source) -> IO[bytes]:
    if is_local(source.uri):
        return cast("IO[bytes]", pa.OSFile(source.uri, "rb"))
    return cast("IO[bytes]", _open_remote(source, _RANDOM_BLOCK_BYTES))


def _open_remote(source: Source, block_bytes: int) -> RemoteFile:
    """Open a remote file; only `block_size` is asked for, the option that every system takes."""
    fs, path = open_filesystem(source.uri)
    with client_errors("read", source.uri):
        file = RemoteFile(fs.open(path, "rb", block_size=block_bytes), source.uri)
    if not file.seekable():
        raise InvalidInputError(f"{source.uri}: expected a store with range reads, found none")
    return file
