"""The forward of a shard, guarded: stuck batches, rows that make it raise, a device that breaks."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from encoder.encoder import Encoder
from encoder.errors import one_line
from encoder.isolation import EncodedEach, encode_each
from encoder.space import Role
from encoder.tokenizer import Tokenized
from pipelines.actor.canaries import Canaries
from pipelines.actor.prepare import PreparedBatch
from pipelines.corpus.earlier_texts import FoundVectors
from pipelines.source.documents import Reject
from pipelines.source.text_rules import id_text

__all__ = ["Embedded", "Forward", "deadline"]

_STDERR = 2


@dataclass(frozen=True)
class Embedded:
    """A shard with its vectors.

    Attributes:
        batch: The rows that were embedded; rows that made the backend raise are among its rejects.
        vectors: (m, D) float32.
        padded_tokens: Tokens that the forward computed, padding included. Those of canaries are
            left out, the padding that they caused is not.
        seconds: Of the forward alone, without the wait for another unit's.
        reused_rows: Rows whose vector was found, or is that of another row with the same text.
        reused_tokens: Their tokens.
    """

    batch: PreparedBatch
    vectors: np.ndarray
    padded_tokens: int
    seconds: float
    reused_rows: int = 0
    reused_tokens: int = 0


class Forward:
    """The encoder's forward, one shard at a time, with a deadline for every batch in it."""

    def __init__(
        self, encoder: Encoder, role: Role, canaries: Canaries, *, batch_timeout_s: float
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: The model.
            role: Role of all rows.
            canaries: What goes with every shard.
            batch_timeout_s: Seconds without a finished batch after which the process ends itself.
        """
        self._encoder = encoder
        self._role = role
        self._canaries = canaries
        self._timeout_s = batch_timeout_s
        self._lock = threading.Lock()

    def embed(self, batch: PreparedBatch, found: FoundVectors | None = None) -> Embedded:
        """Embed a shard's rows; a text that several rows have is computed once.

        A batch that raises is halved until the bad rows are alone; they are rejected with the
        error as their reason.

        Args:
            batch: The rows.
            found: Vectors that need not be computed.

        Raises:
            BackendError: The forward fails for every text, or gives known texts other vectors than
                before, so no row is to blame.
        """
        size = len(batch.rows)
        is_open = np.ones(size, np.bool_)
        if found is not None:
            is_open[found.positions] = False
        computed, place_of = _distinct(batch, is_open)
        encoded, seconds = self._encode(batch, computed)
        if len(computed) == size and not encoded.failures:  # as most shards are
            return Embedded(batch, encoded.vectors, encoded.padded_tokens, seconds)
        vectors = np.zeros((size, self._encoder.space.dimension), np.float32)
        if found is not None:
            vectors[found.positions] = found.vectors
        vectors[is_open] = encoded.vectors[place_of[is_open]]
        failed = {
            row: encoded.failures[place]
            for row, place in enumerate(place_of.tolist())
            if place in encoded.failures
        }
        kept = batch.without(list(failed), _rejects(batch, failed)) if failed else batch
        stays = np.isin(batch.rows, kept.rows)
        is_copy = stays.copy()
        is_copy[computed] = False
        return Embedded(
            kept,
            vectors if kept is batch else vectors[stays],
            encoded.padded_tokens,
            seconds,
            reused_rows=int(is_copy.sum()),
            reused_tokens=int(batch.tokenized.n_tokens[is_copy].sum()),
        )

    def _encode(self, batch: PreparedBatch, rows: Sequence[int]) -> tuple[EncodedEach, float]:
        """Encode some rows of a shard, canaries beside them; return what came of it, and seconds.

        The canaries' own tokens are not among the padded ones.
        """
        if not rows:  # without a wait for another unit's forward
            return EncodedEach(np.zeros((0, self._encoder.space.dimension), np.float32), {}, 0), 0.0
        canaries = self._canaries.beside(len(rows))
        tokenized = batch.tokenized if len(rows) == len(batch.rows) else batch.tokenized.take(rows)
        with self._lock:
            start = time.perf_counter()
            try:
                encoded = encode_each(
                    self._encoder,
                    Tokenized.join([tokenized, canaries]),
                    [self._role] * (len(rows) + len(canaries)),
                    heartbeat=partial(_arm, self._timeout_s),
                )
            finally:
                faulthandler.cancel_dump_traceback_later()
            seconds = time.perf_counter() - start
        by_place = encoded.failures.items()
        self._canaries.check(
            encoded.vectors[len(rows) :],
            {place - len(rows): error for place, error in by_place if place >= len(rows)},
        )
        ours = EncodedEach(
            encoded.vectors[: len(rows)],
            encoded.failures,
            encoded.padded_tokens - canaries.total_tokens,
        )
        return ours, seconds


def _distinct(
    batch: PreparedBatch, is_open: npt.NDArray[np.bool_]
) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Return the first row of each text among some rows, and for each row its text's place there.

    Args:
        batch: m rows.
        is_open: (m,): the rows to look at; the place of the others is -1.
    """
    places: dict[bytes, int] = {}
    first: list[int] = []
    place_of = np.full(len(is_open), -1, np.int64)
    for row in np.flatnonzero(is_open).tolist():
        place = place_of[row] = places.setdefault(batch.hashes[row], len(first))
        if place == len(first):
            first.append(row)
    return first, place_of


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End the process if what is done meanwhile takes longer; one deadline at a time."""
    _arm(seconds)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _arm(seconds: float) -> None:
    """Start the deadline anew: a stuck forward ends the process, tracebacks on its stderr.

    A thread inside C code cannot be interrupted and may hold the GIL; faulthandler's watchdog
    is a C thread that needs neither. Ray then sees a dead worker and the driver counts a try.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)


def _rejects(batch: PreparedBatch, failures: dict[int, Exception]) -> list[Reject]:
    """Return one reject for each source row of which an output row failed."""
    first: dict[int, Exception] = {}
    for position, error in sorted(failures.items()):
        first.setdefault(int(batch.rows[position]), error)
    identities = batch.carried.column(0)
    return [
        Reject(
            id=id_text(identities[int(np.searchsorted(batch.rows, row))].as_py()),
            row=row,
            reason=f"the model raised {one_line(error)}"[:500],
            stage="encode",
        )
        for row, error in first.items()
    ]
