"""Rows and bytes of a Parquet file's row groups, by its footer: a damaged one raises.

`RowGroupMetaData.column` (pyarrow 26) lets what C++ throws end the process: a flipped bit in the
footer of one file would abort a run. Reading a file decodes the same, and reports it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.source.readers.files import open_parquet, translated
from pipelines.source.units import Source

__all__ = ["row_group_sizes", "stored_bytes"]

_ANY_SIZE = 2**62


def row_group_sizes(source: Source) -> list[tuple[int, int]]:
    """Return (rows, compressed bytes) of each row group.

    Raises:
        UnreadableSourceError: The footer is missing or damaged.
        SourceChangedError: The file is gone or was replaced.
        StorageError: The store did not answer.
    """
    with open_parquet(source) as file:
        metadata = file.metadata
    try:
        _decode_chunks(metadata, range(metadata.num_row_groups))
    except (pa.ArrowException, OSError) as error:
        raise translated(error, source.uri, rows_before=None) from error
    return [_size(metadata, group) for group in range(metadata.num_row_groups)]


def stored_bytes(file: pq.ParquetFile, groups: Sequence[int], names: Sequence[str]) -> int:
    """Return the bytes of columns of row groups, as encoded, before compression.

    Args:
        file: An open file.
        groups: Positions of row groups.
        names: Columns; of nested ones all that is in them counts.

    Raises:
        pyarrow.ArrowException: The footer is damaged; or an OSError without errno.
    """
    _decode_chunks(file.metadata, groups)
    paths = [file.schema.column(number).path for number in range(file.metadata.num_columns)]
    below = tuple(f"{name}." for name in names)
    columns = [number for number, path in enumerate(paths) if f"{path}.".startswith(below)]
    found = [file.metadata.row_group(group) for group in groups]
    return sum(
        group.column(number).total_uncompressed_size for group in found for number in columns
    )


def _size(metadata: pq.FileMetaData, index: int) -> tuple[int, int]:
    group = metadata.row_group(index)
    columns = (group.column(number) for number in range(metadata.num_columns))
    return group.num_rows, sum(column.total_compressed_size for column in columns)


def _decode_chunks(metadata: pq.FileMetaData, groups: Sequence[int]) -> None:
    """Begin to read row groups: what is said of their column chunks is decoded before a read.

    0.07 s for 100,000 chunks.
    """
    unread = pq.ParquetFile(_UnreadFile(), metadata=metadata, pre_buffer=True)
    try:
        next(unread.iter_batches(1, row_groups=groups, use_threads=False), None)
    except _ReadError:
        return


class _ReadError(Exception):
    """Arrow is done with the footer and begins to read."""


class _UnreadFile(io.RawIOBase):
    """Stands for the file, whose size does not matter here."""

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return _ANY_SIZE

    def tell(self) -> int:
        return _ANY_SIZE

    def read(self, size: int = -1) -> bytes:
        raise _ReadError
