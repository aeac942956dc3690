"""From counted pieces to a corpus: estimators of rows, documents, tokens and their error.

Each kind of unit is extrapolated by itself: by rows where the format says them (Parquet), else by
stored bytes. Within a piece every document is as likely to be tokenized as any other, so a
tokenized document stands for `documents / sampled` of its piece. Reads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines.source.units import WorkUnit

__all__ = ["PieceCounts", "Stratum", "length_quantiles", "mean_context", "tokens_error"]

_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class PieceCounts:
    """What a piece holds.

    Attributes:
        stored_bytes: Its stored bytes.
        rows: Source rows that were read.
        documents: Of those, rows that are documents.
        sampled: Documents that were tokenized.
        lengths: Tokens of each of their output rows, int32 (m,).
        truncated: Output rows that were cut.
    """

    stored_bytes: int
    rows: int
    documents: int
    sampled: int
    lengths: npt.NDArray[np.int32]
    truncated: int

    @property
    def weight(self) -> float:
        """Documents of the piece that each tokenized one stands for."""
        return self.documents / self.sampled if self.sampled else 0.0

    @property
    def tokens(self) -> float:
        """Tokens of all its documents."""
        return self.weight * float(self.lengths.sum())


@dataclass
class Stratum:
    """The units of one kind, and the pieces of them that were read.

    Attributes:
        units: The planned units.
        whole: Whether the pieces are all of the units.
        pieces: What was read.
    """

    units: list[WorkUnit]
    whole: bool
    pieces: list[PieceCounts] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """Stored bytes of all units."""
        return sum(unit.size_bytes for unit in self.units)

    @property
    def rows_are_known(self) -> bool:
        """Whether the format says the rows of every unit."""
        return all(unit.rows is not None for unit in self.units)

    @property
    def rows(self) -> float:
        """Source rows of all units."""
        if self.rows_are_known:
            return float(sum(unit.rows or 0 for unit in self.units))
        return self._per_size(sum(piece.rows for piece in self.pieces))

    @property
    def documents(self) -> float:
        """Rows that would be embedded, with those that `--on-long reject` leaves out."""
        return self._per_size(sum(piece.documents for piece in self.pieces))

    @property
    def outputs(self) -> float:
        """Output rows: documents, or their chunks."""
        return self._per_size(sum(p.weight * len(p.lengths) for p in self.pieces))

    @property
    def truncated(self) -> float:
        """Output rows that are cut."""
        return self._per_size(sum(piece.weight * piece.truncated for piece in self.pieces))

    @property
    def tokens(self) -> float:
        """Tokens given to the model."""
        return self._per_size(sum(piece.tokens for piece in self.pieces))

    def variance(self) -> float:
        """Return the estimated variance of `tokens`; nan where one piece cannot tell."""
        if self.whole:
            return sum(map(_variance_within, self.pieces))
        if len(self.pieces) < 2:
            return math.nan
        sizes = np.array([self._size(piece) for piece in self.pieces], float)
        tokens = np.array([piece.tokens for piece in self.pieces])
        residuals = tokens - tokens.sum() / sizes.sum() * sizes
        spread = float((residuals**2).sum()) / (len(tokens) * (len(tokens) - 1))
        return spread * (self._total_size() / float(sizes.mean())) ** 2

    def _per_size(self, counted: float) -> float:
        """Return what was counted in the pieces, scaled up to all units."""
        read = sum(map(self._size, self.pieces))
        return counted * self._total_size() / read if read else 0.0

    def _size(self, piece: PieceCounts) -> int:
        return piece.rows if self.rows_are_known else piece.stored_bytes

    def _total_size(self) -> float:
        return self.rows if self.rows_are_known else float(self.size_bytes)


def _variance_within(piece: PieceCounts) -> float:
    """Return the variance of a piece's tokens that not all of its documents were tokenized."""
    if piece.sampled in (0, piece.documents):
        return 0.0
    left_out = 1 - piece.sampled / piece.documents
    return float(piece.lengths.var()) * len(piece.lengths) * piece.weight**2 * left_out


def tokens_error(strata: Sequence[Stratum]) -> float:
    """Return two standard errors of the tokens, relative to them; nan where it cannot be said."""
    total = sum(stratum.tokens for stratum in strata)
    variance = sum(stratum.variance() for stratum in strata)
    return 2 * math.sqrt(variance) / total if total else math.nan


def length_quantiles(strata: Sequence[Stratum]) -> dict[str, int]:
    """Return tokens of an output row: mean, p50, p90, p99, and the largest that was seen."""
    lengths, weights = _weighted(strata)
    order = np.argsort(lengths, kind="stable")
    below = np.cumsum(weights[order]) / weights.sum()
    last = len(order) - 1
    found = {
        f"p{q * 100:g}": int(lengths[order[min(int(np.searchsorted(below, q)), last)]])
        for q in _QUANTILES
    }
    mean = float(np.average(lengths, weights=weights))
    return {"mean": round(mean), **found, "max": int(lengths.max())}


def mean_context(strata: Sequence[Stratum]) -> float:
    """Return the length of the text that a token stands in, on average over tokens."""
    lengths, weights = _weighted(strata)
    return float((weights * lengths**2.0).sum() / (weights * lengths).sum())


def _weighted(
    strata: Sequence[Stratum],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return the lengths of all output rows that were tokenized and what each stands for (m,)."""
    lengths, weights = [], []
    for stratum in strata:
        counted = sum(piece.weight * len(piece.lengths) for piece in stratum.pieces)
        for piece in stratum.pieces:
            lengths.append(piece.lengths)
            share = stratum.outputs * piece.weight / counted if counted else 0.0
            weights.append(np.full(len(piece.lengths), share))
    return np.concatenate(lengths), np.concatenate(weights)
