"""The forward of a shard, guarded against a stuck batch and against rows that make it raise."""

from __future__ import annotations

import faulthandler
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoder.encoder import Encoder
from encoder.errors import BackendError
from encoder.space import Role
from encoder.tokenizer import Tokenized
from pipelines.actor.prepare import PreparedBatch
from pipelines.source.documents import Reject
from pipelines.source.text_rules import id_text

__all__ = ["Embedded", "Forward"]

_LOG = logging.getLogger(__name__)
_STDERR = 2
_KNOWN_GOOD = "a text that every model can embed"


@dataclass(frozen=True)
class Embedded:
    """A shard with its vectors.

    Attributes:
        batch: The rows that were embedded; rows that made the backend raise are among its rejects.
        vectors: (m, D) float32.
        padded_tokens: Tokens that the forward computed, padding included.
    """

    batch: PreparedBatch
    vectors: np.ndarray
    padded_tokens: int


class Forward:
    """The encoder's forward, one shard at a time, with a deadline for every batch in it."""

    def __init__(self, encoder: Encoder, role: Role, *, batch_timeout_s: float) -> None:
        """Wrap an encoder.

        Args:
            encoder: The model.
            role: Role of all rows.
            batch_timeout_s: Seconds without a finished batch after which the process ends itself.
        """
        self._encoder = encoder
        self._role = role
        self._timeout_s = batch_timeout_s
        self._lock = threading.Lock()

    def embed(self, batch: PreparedBatch) -> Embedded:
        """Embed a shard's rows.

        A batch that raises is halved until the bad rows are alone; they are rejected with the
        error as their reason.

        Raises:
            BackendError: The forward fails for every text, so no row is to blame.
        """
        with self._lock:
            try:
                vectors, padded = self._encode(batch.tokenized, range(len(batch.rows)))
                return Embedded(batch, vectors, padded)
            except Exception as error:  # any text may make any backend raise anything
                _LOG.warning("a batch raised %r; halving it to find the row", error)
            return self._embed_what_can_be(batch)

    def _embed_what_can_be(self, batch: PreparedBatch) -> Embedded:
        vectors = np.zeros((len(batch.rows), self._encoder.space.dimension), np.float32)
        failures: dict[int, Exception] = {}
        suspects: set[int] = set()
        padded = 0
        # Similar lengths together, so that halves still pack well.
        open_parts: list[np.ndarray] = [np.argsort(batch.tokenized.n_tokens, kind="stable")]
        while open_parts:
            part = open_parts.pop()
            try:
                vectors[part], cost = self._encode(batch.tokenized, [int(i) for i in part])
                padded += cost
            except Exception as error:  # as above
                if len(part) > 1:
                    open_parts += np.array_split(part, 2)
                elif int(part[0]) not in suspects:
                    # Once more by itself: what failed for a passing reason is not the row's fault.
                    suspects.add(int(part[0]))
                    open_parts.append(part)
                else:
                    self._check_backend(error)
                    failures[int(part[0])] = error
        kept = batch.without(list(failures), _rejects(batch, failures))
        keep = np.isin(batch.rows, kept.rows)
        return Embedded(kept, vectors[keep], padded)

    def _check_backend(self, error: Exception) -> None:
        """Make sure that a row, not the backend, is to blame before the row is rejected."""
        known_good = self._encoder.tokenize([_KNOWN_GOOD], self._role)
        try:
            self._encode(known_good, [0])
        except Exception as second:
            raise BackendError(
                f"the backend fails for every text ({_one_line(error)}); nothing was rejected for "
                "it. Restart the worker, or try --backend torch --dtype float32"
            ) from second

    def _encode(self, tokenized: Tokenized, chosen: Sequence[int]) -> tuple[np.ndarray, int]:
        part = tokenized.take(chosen)
        self._arm()
        try:
            encoded = self._encoder.encode_tokenized(part, self._role, heartbeat=self._arm)
        finally:
            faulthandler.cancel_dump_traceback_later()
        return encoded.vectors, encoded.padded_tokens

    def _arm(self) -> None:
        """Start the deadline anew: a stuck forward ends the process, tracebacks on its stderr.

        A thread inside C code cannot be interrupted and may hold the GIL; faulthandler's watchdog
        is a C thread that needs neither. Ray then sees a dead worker and the driver counts a try.
        """
        faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=_STDERR)


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
            reason=f"the model raised {_one_line(error)}"[:500],
            stage="encode",
        )
        for row, error in first.items()
    ]


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
