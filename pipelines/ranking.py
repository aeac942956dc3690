"""The best documents of a corpus for several queries, kept while its rows stream by.

Exact: every row is scored. A document counts once, by its best row (chunk). What comes out does
not depend on the order in which blocks come. Knows vectors, ids and where a row is; reads nothing.

What is kept of a query are arrays, and a block is judged by whole arrays: thousands of queries that
keep 1,000 documents each are the normal case of an evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.corpus.blocks import Block
from pipelines.corpus.shards import ShardName

__all__ = ["Place", "Ranked", "Ranking"]


_SCORES_AT_ONCE = 16 * 2**20
"""Scores of a block that are in memory at once: 64 MB in float32."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a row is; of equally good rows of a document the first place counts.

    Attributes:
        chunk_index: Which chunk of its document it is.
        shard: Its shard.
        row: Position in the shard.
    """

    chunk_index: int
    shard: ShardName
    row: int


@dataclass(frozen=True)
class Ranked:
    """A document's best row.

    Attributes:
        id: The document's id.
        score: Dot product with the query, or cosine.
        place: Where the row is.
    """

    id: Any
    score: float
    place: Place


class Ranking:
    """A running top k of documents for each of Q queries."""

    def __init__(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        cosine: bool,
        last_ids_first: bool = False,
    ) -> None:
        """Take the queries.

        Args:
            queries: (Q, D) float32.
            k: Documents to keep for each.
            cosine: Divide scores by both lengths (for spaces that are not normalized); a vector of
                length zero then scores 0.
            last_ids_first: Of equal scores the last id, as text, comes first and is kept: the order
                of trec_eval. Otherwise the first id.
        """
        self._queries = _unit(queries) if cosine else queries  # (Q, D)
        self._cosine = cosine
        self._best = [_Best(k, last_ids_first=last_ids_first) for _ in range(len(queries))]
        self._shards: list[ShardName] = []

    def add(self, block: Block) -> None:
        """Score a block's rows; rows whose score is not a number are passed over."""
        vectors = block.vectors.astype(np.float32, copy=False)  # (n, D)
        lengths = _lengths(vectors) if self._cosine else None
        rows = _rows_of(block, self._shard_number(block.shard))
        step = max(1, _SCORES_AT_ONCE // max(1, len(vectors)))
        for start in range(0, len(self._best), step):
            scores = self._queries[start : start + step] @ vectors.T  # (Q', n)
            if lengths is not None:
                scores /= lengths
            for best, row in zip(self._best[start : start + step], scores, strict=True):
                best.add(rows, row, self._shards)

    def results(self) -> list[list[Ranked]]:
        """Return, for each query, its best documents, best first; equal scores by id."""
        return list(self.each())

    def each(self) -> Iterator[list[Ranked]]:
        """Yield what `results` returns query by query: all of them may be millions of objects."""
        for best in self._best:
            yield best.ranked(self._shards)

    def _shard_number(self, shard: ShardName) -> int:
        if shard not in self._shards[-1:]:
            self._shards.append(shard)
        return len(self._shards) - 1


@dataclass(frozen=True)
class _Rows:
    """Rows without their scores, as aligned arrays of length m.

    Attributes:
        ids: object.
        chunk_index: int32.
        shard: Position in the list of shards, int64.
        row: Position in the shard, int64.
    """

    ids: npt.NDArray[np.object_]
    chunk_index: npt.NDArray[np.int32]
    shard: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]

    def take(self, positions: npt.NDArray[np.int64]) -> _Rows:
        return _Rows(
            self.ids[positions],
            self.chunk_index[positions],
            self.shard[positions],
            self.row[positions],
        )

    def join(self, other: _Rows) -> _Rows:
        return _Rows(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.chunk_index, other.chunk_index]),
            np.concatenate([self.shard, other.shard]),
            np.concatenate([self.row, other.row]),
        )

    def place(self, position: int, shards: Sequence[ShardName]) -> Place:
        return Place(
            int(self.chunk_index[position]),
            shards[self.shard[position]],
            int(self.row[position]),
        )


class _Best:
    """The running top k of one query."""

    def __init__(self, k: int, *, last_ids_first: bool) -> None:
        self._k = k
        self._last_ids_first = last_ids_first
        self._rows: _Rows | None = None
        self._scores = np.empty(0, np.float32)
        self._least = -np.inf
        """Score of the kth document so far: less cannot get in, as much can (by its id)."""

    def add(
        self, rows: _Rows, scores: npt.NDArray[np.float32], shards: Sequence[ShardName]
    ) -> None:
        candidates = _best_documents(rows.ids, scores, self._least, self._k)
        if not len(candidates):
            return
        taken = rows.take(candidates)
        self._rows = taken if self._rows is None else self._rows.join(taken)
        self._scores = np.concatenate([self._scores, scores[candidates]])
        if len(set(self._rows.ids)) < len(self._rows.ids):
            self._keep(_first_of_each(self._rows, self._scores, shards))
        if len(self._scores) >= self._k:
            self._trim(self._rows.ids)

    def ranked(self, shards: Sequence[ShardName]) -> list[Ranked]:
        rows, scores = self._rows, self._scores.tolist()
        if rows is None:
            return []
        order = self._by_id(range(len(scores)), rows.ids)
        order.sort(key=scores.__getitem__, reverse=True)  # equal ones stay in their order
        return [Ranked(rows.ids[at], scores[at], rows.place(at, shards)) for at in order]

    def _keep(self, positions: npt.NDArray[np.int64]) -> None:
        if self._rows is not None:
            self._rows = self._rows.take(positions)
            self._scores = self._scores[positions]

    def _trim(self, ids: npt.NDArray[np.object_]) -> None:
        """Keep k documents: the best ones, and of those that tie for the last places by id."""
        self._least = float(np.partition(self._scores, -self._k)[-self._k])
        if len(self._scores) == self._k:
            return
        above = np.flatnonzero(self._scores > self._least)
        tied = self._by_id(np.flatnonzero(self._scores == self._least).tolist(), ids)
        self._keep(np.concatenate([above, np.array(tied[: self._k - len(above)], np.int64)]))

    def _by_id(self, positions: Iterable[int], ids: npt.NDArray[np.object_]) -> list[int]:
        """Return positions in the order in which documents of one score come."""
        if self._last_ids_first:
            return sorted(positions, key=lambda at: str(ids[at]), reverse=True)
        return sorted(positions, key=ids.__getitem__)


def _rows_of(block: Block, shard: int) -> _Rows:
    count = len(block.ids)
    ids = np.empty(count, np.object_)
    ids[:] = block.ids.to_pylist()
    return _Rows(
        ids=ids,
        chunk_index=block.chunk_index,
        shard=np.full(count, shard, np.int64),
        row=np.arange(block.row_start, block.row_start + count, dtype=np.int64),
    )


def _best_documents(
    ids: npt.NDArray[np.object_], scores: npt.NDArray[np.float32], least: float, k: int
) -> npt.NDArray[np.int64]:
    """Return positions of rows that score `least` or more, among them all of the k best documents.

    More than k rows, where they tie or are chunks of one document.
    """
    candidates = np.flatnonzero(scores >= least)
    found, rows = scores[candidates], k
    while rows < len(candidates):
        enough: npt.NDArray[np.int64] = candidates[found >= np.partition(found, -rows)[-rows]]
        if len(set(ids[enough])) >= k:
            return enough
        rows *= 2
    return candidates


def _first_of_each(
    rows: _Rows, scores: npt.NDArray[np.float32], shards: Sequence[ShardName]
) -> npt.NDArray[np.int64]:
    """Return each document's best row; of equally good ones the first place."""
    best: dict[Any, tuple[tuple[float, Place], int]] = {}
    for at, (identity, score) in enumerate(zip(rows.ids, scores.tolist(), strict=True)):
        rank = (-score, rows.place(at, shards))
        if identity not in best or rank < best[identity][0]:
            best[identity] = (rank, at)
    return np.array([at for _, at in best.values()], np.int64)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = vectors / _lengths(vectors)[:, None]  # (Q, D)
    return unit


def _lengths(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what to divide vectors by, float32 (N,): 1 for those that have no direction."""
    norms: npt.NDArray[np.float32] = np.linalg.norm(vectors, axis=1).astype(np.float32)
    norms[norms == 0] = 1
    return norms
