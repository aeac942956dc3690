"""A shard opened for reading: its footer, and its rows in batches of bounded memory.

What Arrow, the disk or the store say of a damaged file becomes one `CorpusError` that names it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from encoder.errors import StorageError, one_line
from encoder.file_systems import what_to_check
from encoder.space import EmbeddingSpace
from pipelines.corpus.shards import DATA, ShardFooter, ShardName, footer_of
from pipelines.errors import CorpusError
from pipelines.source.arrow_values import runs_code
from pipelines.storage import OUTAGES, Storage

__all__ = ["ShardFile", "damage_explained"]

_WHOLE_FILE_BYTES = 64 * 2**20
"""Remote files up to this size are one request; larger ones are read piece by piece."""
_BUFFER_BYTES = 4 * 2**20


class ShardFile:
    """A Parquet file of an output folder, open for reading; a context manager."""

    def __init__(
        self,
        storage: Storage,
        name: ShardName,
        *,
        folder: str = DATA,
        verify_checksums: bool = False,
    ) -> None:
        """Open the file and read its footer.

        Args:
            storage: The output folder.
            name: The shard.
            folder: `DATA`, or `REJECTS` for the file of the shard's rejects.
            verify_checksums: Compare the checksum of every page that is read.

        Raises:
            CorpusError: The file is gone, or no Parquet file.
        """
        self.where = storage.below(f"{folder}/{name}")
        self._stream: io.IOBase | None = None
        with self._explained():
            source, buffer_bytes = self._source(storage, f"{folder}/{name}")
            self._file = pq.ParquetFile(
                source,
                buffer_size=buffer_bytes,
                pre_buffer=False,
                page_checksum_verification=verify_checksums,
            )

    @property
    def schema(self) -> pa.Schema:
        """The file's Arrow schema.

        Raises:
            CorpusError: It cannot be read.
        """
        with self._explained():
            return self._file.schema_arrow

    def said(self) -> tuple[ShardFooter, EmbeddingSpace]:
        """Return what the shard says of itself.

        Raises:
            CorpusError: It says nothing, or nothing that this version of twofold writes.
        """
        return footer_of(self.schema, self.where)

    def batches(
        self, columns: Sequence[str] | None = None, *, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order.

        Args:
            columns: What to read; None reads all.
            batch_rows: Rows of a batch at most.

        Raises:
            CorpusError: The rest of the file cannot be read, or has not these columns, or one is
                of a type that runs code.
        """
        # Arrow passes over columns that are not there, and gives both where there are two.
        names = self.schema.names
        missing = [name for name in columns or () if names.count(name) != 1]
        if missing:
            raise CorpusError(
                f"{self.where} is not readable: expected one column {missing[0]!r}, found "
                f"{', '.join(map(ascii, names))}"
            )
        for name, data_type in zip(names, self.schema.types, strict=True):
            if name in (columns or names) and runs_code(data_type):
                raise CorpusError(
                    f"{self.where} is not readable: expected plain values in column {name!r}, "
                    f"found {data_type}, which runs code to read a value"
                )
        with self._explained():
            batches = self._file.iter_batches(batch_rows, columns=columns, use_threads=False)
        while True:
            with self._explained():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._stream is not None:
            self._stream.close()

    def _source(self, storage: Storage, relative: str) -> tuple[Any, int]:
        """Return what Arrow is to read, and how much of it at a time (0: a column at once)."""
        if storage.is_local:
            return storage.path(relative), _BUFFER_BYTES
        if storage.size(relative) > _WHOLE_FILE_BYTES:
            # A column's values lie together, so that reading them is few requests.
            self._stream = storage.open(relative)  # type: ignore[assignment]
            return self._stream, _BUFFER_BYTES
        content = storage.read(relative)
        if content is None:
            raise FileNotFoundError(relative)
        return pa.BufferReader(content), 0

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with damage_explained(self.where):
                yield
        except FileNotFoundError as error:
            raise CorpusError(f"{self.where} is not there") from error


@contextmanager
def damage_explained(where: str) -> Iterator[None]:
    """Name the file of which Arrow, the disk or the store say that it cannot be read.

    Args:
        where: The file.

    Raises:
        StorageError: The store does not answer, which says nothing of the file.
        CorpusError: It cannot be read.
        FileNotFoundError: It is not there.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OUTAGES as error:
        raise StorageError(
            f"cannot read {where}: {one_line(error)}; {what_to_check(where)}"
        ) from error
    # Of a store's file an OSError is Arrow's: what the client raises is a StorageError already. A
    # ValueError is a name that is no UTF-8, or values that are not what the schema says.
    except (pa.ArrowException, ValueError, OSError) as error:
        raise CorpusError(f"{where} is not readable: {one_line(error)}") from error
