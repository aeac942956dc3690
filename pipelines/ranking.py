"""The best documents of a corpus for several queries, kept while its rows stream by.

Exact: every row is scored. A document counts once, by its best row (chunk). What comes out does
not depend on the order in which blocks come. Knows vectors, ids and where a row is; reads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.corpus.shards import ShardName

__all__ = ["Block", "Place", "Ranked", "Ranking"]


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

    def __init__(self, queries: npt.NDArray[np.float32], k: int, *, cosine: bool) -> None:
        """Take the queries.

        Args:
            queries: (Q, D) float32.
            k: Documents to keep for each.
            cosine: Divide scores by both lengths (for spaces that are not normalized); a vector of
                length zero then scores 0.
        """
        self._queries = _unit(queries) if cosine else queries  # (Q, D)
        self._cosine = cosine
        self._best = [_Best(k) for _ in range(len(queries))]

    def add(self, block: Block) -> None:
        """Score a block's rows; rows whose score is not a number are passed over."""
        vectors = block.vectors.astype(np.float32, copy=False)  # (n, D)
        scores = self._queries @ vectors.T  # (Q, n)
        if self._cosine:
            scores /= _lengths(vectors)
        for best, row in zip(self._best, scores, strict=True):
            best.add(block, row)

    def results(self) -> list[list[Ranked]]:
        """Return, for each query, its best documents, best first; equal scores by id."""
        return [best.ranked() for best in self._best]


class _Best:
    """The running top k of one query."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._found: dict[Any, tuple[float, Place]] = {}
        self._least = -np.inf
        """Score of the kth document so far: less cannot get in, as much can (by its id)."""

    def add(self, block: Block, scores: npt.NDArray[np.float32]) -> None:
        candidates = np.flatnonzero(scores >= self._least)
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
        seen: set[Any] = set()
        last = np.inf
        for position in map(int, candidates):
            score = float(scores[position])
            if len(seen) >= self._k and score < last:
                break  # k documents of this block alone are better
            last = score
            identity = block.ids[position].as_py()
            seen.add(identity)
            self._keep(identity, score, _place(block, position))
        if len(self._found) >= self._k:
            self._trim()

    def ranked(self) -> list[Ranked]:
        self._trim()
        return [Ranked(identity, score, place) for identity, (score, place) in self._found.items()]

    def _keep(self, identity: Any, score: float, place: Place) -> None:  # noqa: ANN401
        known = self._found.get(identity)
        if known is None or (-score, place) < (-known[0], known[1]):
            self._found[identity] = (score, place)

    def _trim(self) -> None:
        ordered = sorted(self._found.items(), key=lambda item: (-item[1][0], item[0]))
        self._found = dict(ordered[: self._k])
        if len(self._found) == self._k:
            self._least = ordered[self._k - 1][1][0]


def _place(block: Block, position: int) -> Place:
    return Place(int(block.chunk_index[position]), block.shard, block.row_start + position)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = vectors / _lengths(vectors)[:, None]  # (Q, D)
    return unit


def _lengths(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what to divide vectors by, float32 (N,): 1 for those that have no direction."""
    norms: npt.NDArray[np.float32] = np.linalg.norm(vectors, axis=1).astype(np.float32)
    norms[norms == 0] = 1
    return norms
