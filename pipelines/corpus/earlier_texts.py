"""Vectors that shards hold already, found by the hash of their texts.

Where a source changes, most of its texts do not. A text's vector depends on the space and on
nothing else, so it is copied from the shards of an earlier version instead of being computed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from encoder.space import EmbeddingSpace
from pipelines.columns import EMBEDDING, TEXT_HASH, TEXT_HASH_BYTES
from pipelines.corpus.shard_file import ShardFile, damage_explained
from pipelines.corpus.shards import DATA, ShardName, footer_of
from pipelines.errors import CorpusError
from pipelines.storage import Storage

__all__ = ["EarlierTexts", "FoundVectors"]

_LOG = logging.getLogger(__name__)

_READ_THREADS = 8
_READ_AHEAD_BYTES = 64 * 1024
"""A shard's hashes are a hundredth of it; see `ids`."""
_WORDS = TEXT_HASH_BYTES // 8
_ROWS_AT_ONCE = 1024
_LEAST_SHARE = 64
"""A shard is read for a 64th of its rows or more: that is 160 forwards of one text spared for 15 MB
(384 dimensions, 10,000 rows). For a single one a CPU computes faster than a store answers."""
_COMPUTED_BY = ("backend", "dtype", "int8_graph")
"""What two encoders of a space may differ in so that a shard would hold what its footer denies."""


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
    """The texts of some shards, by their hashes; 24 bytes of memory each. For any thread."""

    def __init__(
        self,
        storage: Storage,
        names: Sequence[ShardName],
        *,
        space: EmbeddingSpace,
        provenance: Mapping[str, str],
    ) -> None:
        """Read the hashes of shards. One that is damaged or gone has no texts; a warning says so.

        Args:
            storage: The output folder.
            names: Its shards.
            space: Of the vectors that are wanted.
            provenance: Of the encoder that would compute them. Shards of another backend or
                precision have no texts.

        Raises:
            StorageError: The store did not answer.
        """
        self._storage = storage
        self._space = space
        self._computed_by = _computed_by(provenance)
        self._names = list(names)
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            hashes = list(pool.map(self._hashes, self._names))
        self._rows_of = [len(part) for part in hashes]
        keys = np.concatenate([np.zeros((0, _WORDS), np.uint64), *hashes])
        order = np.argsort(keys[:, 0])
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
        places = self._places(hashes)  # (N,): in the sorted keys, -1 for a text that is not there
        there = np.flatnonzero(places >= 0)
        shards, rows = self._shards[places[there]], self._rows[places[there]]
        positions: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
        vectors = [np.zeros((0, self._space.dimension), np.float32)]
        for shard in np.unique(shards).tolist():
            here = shards == shard
            wanted, back = np.unique(rows[here], return_inverse=True)
            if len(wanted) * _LEAST_SHARE < self._rows_of[shard]:
                continue
            found = self._vectors(self._names[shard], wanted)
            if found is not None:
                positions.append(there[here])
                vectors.append(found[back])
        together = np.concatenate(positions)
        order = np.argsort(together)
        return FoundVectors(together[order], np.concatenate(vectors)[order])

    def _places(self, hashes: Sequence[bytes]) -> npt.NDArray[np.int64]:
        wanted = _words(hashes)
        if not len(self._keys):
            return np.full(len(wanted), -1)
        places = np.searchsorted(self._keys[:, 0], wanted[:, 0])
        places = np.minimum(places, len(self._keys) - 1)
        # Of two texts that share the first half of their hash (2^-64) one is computed.
        return np.where((self._keys[places] == wanted).all(axis=1), places, -1)

    def _hashes(self, name: ShardName) -> npt.NDArray[np.uint64]:
        """Return the hashes of a shard's texts, (rows, 2); none if its vectors cannot be used."""
        relative = f"{DATA}/{name}"
        where = self._storage.below(relative)
        try:
            with (
                damage_explained(where),
                self._storage.open(relative, read_ahead_bytes=_READ_AHEAD_BYTES) as stream,
            ):
                file = pq.ParquetFile(stream, page_checksum_verification=True)
                footer, space = footer_of(file.schema_arrow, where)
                if space != self._space or _computed_by(footer.provenance) != self._computed_by:
                    return _words([])
                return _words(file.read([TEXT_HASH]).column(TEXT_HASH).to_pylist())
        except (CorpusError, FileNotFoundError) as error:
            _passed_over(where, error)
            return _words([])

    def _vectors(
        self, name: ShardName, rows: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32] | None:
        """Return the vectors of rows of a shard, ascending; None if it cannot be read."""
        try:
            found = np.concatenate(list(self._read_vectors(name, rows)))
        except CorpusError as error:
            _passed_over(self._storage.below(f"{DATA}/{name}"), error)
            return None
        return found

    def _read_vectors(
        self, name: ShardName, rows: npt.NDArray[np.int32]
    ) -> Iterator[npt.NDArray[np.float32]]:
        start = 0
        with ShardFile(self._storage, name, verify_checksums=True) as shard:
            for batch in shard.batches([EMBEDDING], batch_rows=_ROWS_AT_ONCE):
                with damage_explained(shard.where):
                    values = pc.list_flatten(batch.column(0)).to_numpy()
                    vectors = values.reshape(batch.num_rows, self._space.dimension)
                low, high = np.searchsorted(rows, [start, start + batch.num_rows])
                chosen = vectors[rows[low:high] - start].astype(np.float32)
                if not np.isfinite(chosen).all():
                    raise CorpusError(f"{shard.where} holds vectors that are no numbers")
                yield chosen
                start += batch.num_rows
                if not len(rows) or start > rows[-1]:
                    return


def _words(hashes: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, _WORDS)


def _computed_by(provenance: Mapping[str, str]) -> list[str | None]:
    return [provenance.get(name) for name in _COMPUTED_BY]


def _passed_over(where: str, error: Exception) -> None:
    reason = "another job has retired it" if isinstance(error, FileNotFoundError) else error
    _LOG.warning("no vectors are taken from %s, they are computed: %s", where, reason)
