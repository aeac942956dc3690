"""Vectors that shards hold already, found by the hash of their texts.

Where a source changes, most of its texts do not. A text's vector depends on the space and on
nothing else, so it is copied from the shards of an earlier version instead of being computed.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

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
_LEAST_SHARE = 16
"""A shard is read for a 16th of its rows or more: 15 MB (384 dimensions, 10,000 rows) for 625.
For a few texts a CPU computes faster than a store answers, and a GPU for many."""
_KEPT_BYTES = 2**28
"""Of vectors that were read: 17 such shards, as many as one is likely to need of a 16th each."""
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
            names: Its shards, the likelier ones first.
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
        # Stable: of a text that several shards hold the first one's vector is found.
        order = np.argsort(keys[:, 0], kind="stable")
        self._keys = keys[order]
        self._shards = np.repeat(np.arange(len(hashes), dtype=np.int32), self._rows_of)[order]
        rows = [np.arange(count, dtype=np.int32) for count in self._rows_of]
        self._rows = np.concatenate([np.zeros(0, np.int32), *rows])[order]
        self._reading = threading.Lock()
        self._kept: OrderedDict[int, npt.NDArray[np.floating[Any]] | None] = OrderedDict()

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
            if len(np.unique(rows[here])) * _LEAST_SHARE < self._rows_of[shard]:
                continue
            found = self._vectors(shard)
            if found is not None:
                positions.append(there[here])
                vectors.append(found[rows[here]].astype(np.float32))
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

    def _vectors(self, shard: int) -> npt.NDArray[np.floating[Any]] | None:
        """Return all vectors of a shard, (rows, D); None if it cannot be read."""
        with self._reading:
            if shard not in self._kept:
                self._kept[shard] = self._read_vectors(self._names[shard])
            self._kept.move_to_end(shard)
            while sum(0 if v is None else v.nbytes for v in self._kept.values()) > _KEPT_BYTES:
                oldest, vectors = self._kept.popitem(last=False)
                if oldest == shard:
                    return vectors
            return self._kept[shard]

    def _read_vectors(self, name: ShardName) -> npt.NDArray[np.floating[Any]] | None:
        where = self._storage.below(f"{DATA}/{name}")
        try:
            with (
                damage_explained(where),
                ShardFile(self._storage, name, verify_checksums=True) as file,
            ):
                batches = file.batches([EMBEDDING], batch_rows=_ROWS_AT_ONCE)
                values = [pc.list_flatten(batch.column(0)).to_numpy() for batch in batches]
                vectors = np.concatenate(values).reshape(-1, self._space.dimension)
            if not np.isfinite(vectors).all():
                raise CorpusError(f"{where} holds vectors that are no numbers")
        except (CorpusError, FileNotFoundError) as error:
            _passed_over(where, error)
            return None
        return vectors


def _words(hashes: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, _WORDS)


def _computed_by(provenance: Mapping[str, str]) -> list[str | None]:
    return [provenance.get(name) for name in _COMPUTED_BY]


def _passed_over(where: str, error: Exception) -> None:
    reason = "another job has retired it" if isinstance(error, FileNotFoundError) else error
    _LOG.warning("no vectors are taken from %s, they are computed: %s", where, reason)
