"""Vectors that shards hold already, found by the hash of their texts.

Where a source changes, most of its texts do not. A text's vector depends on the space and on
nothing else, so it is copied from the shards of an earlier version instead of being computed.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from encoder.errors import NewerFormatError
from encoder.space import EmbeddingSpace
from pipelines.columns import EMBEDDING, TEXT_HASH, TEXT_HASH_BYTES
from pipelines.corpus.shard_file import ShardFile, damage_explained
from pipelines.corpus.shards import DATA, ShardName, footer_of
from pipelines.errors import CorpusError
from pipelines.storage import Storage

__all__ = ["EarlierTexts", "EarlierVectors", "FoundVectors"]

_LOG = logging.getLogger(__name__)

_READ_THREADS = 8
_READ_AHEAD_BYTES = 64 * 1024
"""A shard's hashes are a hundredth of it; see `ids`."""
_WORDS = TEXT_HASH_BYTES // 8
_ROWS_AT_ONCE = 1024
_LEAST_SHARE = 16
"""A shard is read for a 16th of its rows or more: 15 MB (384 dimensions, 10,000 rows) for 625.
For a few texts a CPU computes faster than a store answers, and a GPU for many."""
_KEPT_VECTORS_BYTES = 2**28
"""17 such shards, as many as one is likely to need of a 16th each."""
_KEPT_HASHES_BYTES = 2**26
_COMPUTED_BY = ("backend", "dtype", "int8_graph")
"""What two encoders of a space may differ in so that a shard would hold what its footer denies."""

_UNREADABLE = (CorpusError, NewerFormatError, FileNotFoundError)
"""Reasons to compute what a shard holds; a store that does not answer is none."""

_Hashes = npt.NDArray[np.uint64]
_Vectors = npt.NDArray[np.floating[Any]]
_Arrays = TypeVar("_Arrays", bound=tuple[npt.NDArray[Any], ...])


class EarlierVectors:
    """Hashes and vectors of a corpus' shards; keeps what it read last. For any thread.

    Args:
        storage: The output folder.
        space: Of the vectors that are wanted.
        provenance: Of the encoder that would compute them: what another backend or precision
            computed is not wanted.
    """

    def __init__(
        self, storage: Storage, *, space: EmbeddingSpace, provenance: Mapping[str, str]
    ) -> None:
        self._storage = storage
        self.space = space
        self._computed_by = _computed_by(provenance)
        self._hashes: _Kept[tuple[_Hashes]] = _Kept(_KEPT_HASHES_BYTES)
        self._vectors: _Kept[tuple[_Hashes, _Vectors]] = _Kept(_KEPT_VECTORS_BYTES)

    def hashes(self, name: ShardName) -> _Hashes:
        """Return the hashes of a shard's texts, (rows, 2); none if its vectors cannot be used.

        Raises:
            StorageError: The store did not answer.
        """
        (hashes,) = self._hashes.get(name, self._read_hashes)
        return hashes

    def of(self, name: ShardName) -> tuple[_Hashes, _Vectors]:
        """Return the hashes of a shard's texts, (rows, 2), and their vectors, (rows, D).

        Raises:
            StorageError: The store did not answer.
        """
        return self._vectors.get(name, self._read_vectors)

    def _read_hashes(self, name: ShardName) -> tuple[_Hashes]:
        relative = f"{DATA}/{name}"
        where = self._storage.below(relative)
        try:
            with (
                damage_explained(where),
                self._storage.open(relative, read_ahead_bytes=_READ_AHEAD_BYTES) as stream,
            ):
                file = pq.ParquetFile(stream, page_checksum_verification=True)
                footer, space = footer_of(file.schema_arrow, where)
                is_alike = _computed_by(footer.provenance) == self._computed_by
                if is_alike and space == self.space:
                    return (_hashes_in(file.read([TEXT_HASH])),)
        except _UNREADABLE as error:
            _passed_over(where, error)
        return (_words([]),)

    def _read_vectors(self, name: ShardName) -> tuple[_Hashes, _Vectors]:
        where = self._storage.below(f"{DATA}/{name}")
        dimension = self.space.dimension
        try:
            with damage_explained(where):
                with ShardFile(self._storage, name, verify_checksums=True) as file:
                    batches = list(file.batches([TEXT_HASH, EMBEDDING], batch_rows=_ROWS_AT_ONCE))
                table = pa.Table.from_batches(batches)
                vectors = pc.list_flatten(table[EMBEDDING]).to_numpy().reshape(-1, dimension)
                hashes = _hashes_in(table)
            if len(hashes) != len(vectors) or not np.isfinite(vectors).all():
                raise CorpusError(f"{where} holds rows whose vectors are none, or no numbers")
        except _UNREADABLE as error:
            _passed_over(where, error)
            return _words([]), np.zeros((0, dimension), np.float32)
        return hashes, vectors


@dataclass(frozen=True)
class FoundVectors:
    """Vectors of some of the texts that were asked for.

    Attributes:
        positions: (k,) int64, ascending: which of the texts.
        vectors: (k, D) float32.
    """

    positions: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]


class EarlierTexts:
    """The texts of some shards, by their hashes; 24 bytes of memory each. For any thread.

    Args:
        names: The shards. Of those that are damaged or gone there are no texts; a warning says so.
        vectors: Reads them.

    Raises:
        StorageError: The store did not answer.
    """

    def __init__(self, names: Sequence[ShardName], vectors: EarlierVectors) -> None:
        self.names = names
        self._vectors = vectors
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            hashes = list(pool.map(vectors.hashes, names))
        self._rows_of = [len(part) for part in hashes]
        keys = np.concatenate([_words([]), *hashes])
        # Stable: of a text that several shards hold the first one's vector is found.
        order = np.argsort(keys[:, 0], kind="stable")
        self._keys = keys[order]
        self._shards = np.repeat(np.arange(len(hashes), dtype=np.int32), self._rows_of)[order]
        rows = [np.arange(count, dtype=np.int32) for count in self._rows_of]
        self._rows = np.concatenate([np.zeros(0, np.int32), *rows])[order]

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self._keys)

    def find(self, hashes: Sequence[bytes]) -> FoundVectors:
        """Return the vectors of those texts that are there and worth reading.

        Args:
            hashes: `text_hash` of each text.

        Raises:
            StorageError: The store did not answer.
        """
        wanted = _words(hashes)
        places = self._places(wanted)  # (N,): in the sorted keys, -1 for a text that is not there
        there = np.flatnonzero(places >= 0)
        shards, rows = self._shards[places[there]], self._rows[places[there]]
        positions: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
        vectors = [np.zeros((0, self._vectors.space.dimension), np.float32)]
        for shard in np.unique(shards).tolist():
            here = shards == shard
            if len(np.unique(rows[here])) * _LEAST_SHARE < self._rows_of[shard]:
                continue
            held, found = self._vectors.of(self.names[shard])
            if len(held) != self._rows_of[shard]:
                continue  # damaged, gone, or another one by now
            at, chosen = there[here], rows[here]
            is_it = (held[chosen] == wanted[at]).all(axis=1)
            positions.append(at[is_it])
            vectors.append(found[chosen[is_it]].astype(np.float32))
        together = np.concatenate(positions)
        order = np.argsort(together)
        return FoundVectors(together[order], np.concatenate(vectors)[order])

    def _places(self, wanted: _Hashes) -> npt.NDArray[np.int64]:
        if not len(self._keys):
            return np.full(len(wanted), -1)
        places = np.searchsorted(self._keys[:, 0], wanted[:, 0])
        places = np.minimum(places, len(self._keys) - 1)
        # Of two texts that share the first half of their hash (2^-64) one is computed.
        return np.where((self._keys[places] == wanted).all(axis=1), places, -1)


class _Kept(Generic[_Arrays]):
    """What was read of shards, as far as there is memory; the last ones.

    Args:
        max_bytes: Of arrays.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._arrays: OrderedDict[ShardName, _Arrays] = OrderedDict()
        self._bytes = 0

    def get(self, name: ShardName, read: Callable[[ShardName], _Arrays]) -> _Arrays:
        """Return a shard's arrays; read them, outside of any lock, where they are not kept."""
        with self._lock:
            if name in self._arrays:
                self._arrays.move_to_end(name)
                return self._arrays[name]
        arrays = read(name)
        with self._lock:
            if name not in self._arrays:
                self._arrays[name] = arrays
                self._bytes += _size(arrays)
            while self._bytes > self._max_bytes:
                self._bytes -= _size(self._arrays.popitem(last=False)[1])
        return arrays


def _size(arrays: tuple[npt.NDArray[Any], ...]) -> int:
    return sum(array.nbytes for array in arrays)


def _words(hashes: Sequence[bytes]) -> _Hashes:
    return np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, _WORDS)


def _hashes_in(table: pa.Table) -> _Hashes:
    """Return the column of hashes.

    Raises:
        ValueError: There is none of that kind.
    """
    column = table[TEXT_HASH] if table.schema.names.count(TEXT_HASH) == 1 else None
    if column is None or column.type != pa.binary(TEXT_HASH_BYTES) or column.null_count:
        raise ValueError(f"expected a column {TEXT_HASH} of {TEXT_HASH_BYTES} bytes a row")
    return _words(column.to_pylist())


def _computed_by(provenance: Mapping[str, str]) -> list[str | None]:
    return [provenance.get(name) for name in _COMPUTED_BY]


def _passed_over(where: str, error: Exception) -> None:
    reason = "another job has retired it" if isinstance(error, FileNotFoundError) else error
    _LOG.warning("no vectors are taken from %s, they are computed: %s", where, reason)
