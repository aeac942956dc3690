"""The vectors of a corpus as a stream of blocks, and single rows by their places.

Readers run ahead on threads and wait when they are too far: what is in memory does not grow with
the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.columns import CHUNK_INDEX, EMBEDDING
from pipelines.corpus.corpus_model import check_space
from pipelines.corpus.index import list_shards, read_index
from pipelines.corpus.pin import Pin
from pipelines.corpus.shard_file import ShardFile, damage_explained
from pipelines.corpus.shards import ShardName
from pipelines.read_ahead import ReadAhead
from pipelines.storage import Storage

__all__ = ["Block", "live_shards", "read_rows", "stream_blocks"]

_READERS = 4
_BLOCKS_AHEAD = 2
"""Blocks that wait for each reader; readers times blocks is what is in memory."""
_BLOCK_VALUES = 2 * 2**20
"""Numbers of a block of vectors: 8 MB in float32."""
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a shard; n rows.

    Attributes:
        shard: The shard.
        row_start: Position of the first row in it.
        ids: n ids.
        chunk_index: (n,) int32.
        vectors: (n, D) float32 or float16.
    """

    shard: ShardName
    row_start: int
    ids: pa.Array
    chunk_index: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.floating[Any]]


def live_shards(storage: Storage) -> list[ShardName]:
    """Return the shards that the index lists, or before there is one all that exist."""
    index = read_index(storage)
    return sorted(list_shards(storage) if index is None else (s.name for s in index.shards))


def stream_blocks(storage: Storage, pin: Pin, names: Sequence[ShardName]) -> Iterator[Block]:
    """Yield all rows of shards; which shard's block comes next depends on the readers.

    Raises:
        CorpusError: A shard cannot be read.
        SpaceMismatchError: A shard is of another space than the corpus.
    """
    parts = [names[reader::_READERS] for reader in range(min(_READERS, len(names)))]
    with ExitStack() as stack:
        readers = [
            stack.enter_context(
                ReadAhead(partial(_blocks, storage, pin, part), items=_BLOCKS_AHEAD)
            )
            for part in parts
        ]
        while readers:
            for reader in list(readers):
                block = next(reader, None)
                if block is None:
                    readers.remove(reader)
                else:
                    yield block


def _blocks(storage: Storage, pin: Pin, names: Sequence[ShardName]) -> Iterator[Block]:
    dimension, id_column = pin.space.dimension, pin.layout.id_column
    columns = [id_column, CHUNK_INDEX, EMBEDDING]
    for name in names:
        with ShardFile(storage, name) as shard:
            check_space(pin, shard.said()[1], shard.where)
            row = 0
            for batch in shard.batches(columns, batch_rows=max(1, _BLOCK_VALUES // dimension)):
                ids, chunk_index, embedding = (batch.column(column) for column in columns)
                with damage_explained(shard.where):
                    # Without this bytes that are no UTF-8 would fail whoever reads the ids.
                    ids.validate(full=True)
                    vectors = pc.list_flatten(embedding).to_numpy()
                    block = Block(
                        shard=name,
                        row_start=row,
                        ids=ids,
                        chunk_index=chunk_index.to_numpy(),
                        vectors=vectors.reshape(batch.num_rows, dimension),
                    )
                yield block
                row += batch.num_rows


def read_rows(
    storage: Storage, name: ShardName, positions: Iterable[int], columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (position, values) of some rows of a shard, in order.

    Args:
        storage: The output folder.
        name: The shard.
        positions: Rows to read; each is yielded once.
        columns: What to read of them.

    Raises:
        CorpusError: The shard cannot be read.
    """
    wanted = sorted(set(positions))
    start = 0
    with ShardFile(storage, name) as shard:
        for batch in shard.batches(columns, batch_rows=_ROWS_AT_ONCE):
            stop = start + batch.num_rows
            here = [row for row in wanted if start <= row < stop]
            if here:
                with damage_explained(shard.where):
                    taken = batch.take(pa.array([row - start for row in here], pa.int64()))
                    values = taken.to_pylist()
                yield from zip(here, values, strict=True)
            if not wanted or stop > wanted[-1]:
                return
            start = stop
