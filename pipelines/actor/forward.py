"""The forward of a shard, guarded: stuck batches, rows that make it raise, a device that breaks."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from encoder.encoder import Encoder
from encoder.errors import one_line
from encoder.isolation import encode_each
from encoder.space import Role
from encoder.tokenizer import Tokenized
from pipelines.actor.canaries import Canaries
from pipelines.actor.prepare import PreparedBatch
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
    """

    batch: PreparedBatch
    vectors: np.ndarray
    padded_tokens: int
    seconds: float


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

    def embed(self, batch: PreparedBatch) -> Embedded:
        """Embed a shard's rows.

        A batch that raises is halved until the bad rows are alone; they are rejected with the
        error as their reason.

        Raises:
            BackendError: The forward fails for every text, or gives known texts other vectors than
                before, so no row is to blame.
        """
        rows = len(batch.rows)
        canaries = self._canaries.beside(rows)
        with self._lock:
            start = time.perf_counter()
            try:
                encoded = encode_each(
                    self._encoder,
                    Tokenized.join([batch.tokenized, canaries]),
                    [self._role] * (rows + len(canaries)),
                    heartbeat=partial(_arm, self._timeout_s),
                )
            finally:
                faulthandler.cancel_dump_traceback_later()
            seconds = time.perf_counter() - start
        failed = encoded.failures
        self._canaries.check(
            encoded.vectors[rows:],
            {place - rows: error for place, error in failed.items() if place >= rows},
        )
        vectors = encoded.vectors[:rows]
        padded_tokens = encoded.padded_tokens - canaries.total_tokens
        if not failed:
            return Embedded(batch, vectors, padded_tokens, seconds)
        kept = batch.without(list(failed), _rejects(batch, failed))
        vectors = vectors[np.isin(batch.rows, kept.rows)]
        return Embedded(kept, vectors, padded_tokens, seconds)


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
