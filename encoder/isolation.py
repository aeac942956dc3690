"""Encode texts of which some may make the model raise: the others must not suffer for them.

A set of texts that raises is halved until the bad ones are alone. Used by the corpus job (a bad row
is rejected) and by the endpoint (a bad input fails its own request), with the same judgement of
what is a text's fault and what is the backend's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from encoder.encoder import EncodedVectors, Encoder
from encoder.errors import BackendError, one_line
from encoder.space import Role
from encoder.tokenizer import Tokenized

__all__ = ["EncodedEach", "encode_each"]

_logger = logging.getLogger(__name__)
_KNOWN_GOOD = "a text that every model can embed"


@dataclass(frozen=True)
class EncodedEach:
    """What could be encoded of N texts.

    Attributes:
        vectors: float32 (N, D); rows of `failures` are zero.
        failures: Why a text could not be encoded, by its index.
        padded_tokens: Tokens computed, padding included.
    """

    vectors: npt.NDArray[np.float32]
    failures: dict[int, Exception]
    padded_tokens: int


def encode_each(
    encoder: Encoder,
    tokenized: Tokenized,
    roles: Sequence[Role],
    *,
    heartbeat: Callable[[], None] | None = None,
) -> EncodedEach:
    """Encode texts; those that make the model raise are named, the others have their vectors.

    Args:
        encoder: The model.
        tokenized: N texts.
        roles: One for each text.
        heartbeat: Called before every attempt and after every finished forward.

    Raises:
        BackendError: A known-good text fails too, so no text is to blame.
    """
    attempt = _Attempt(encoder, tokenized, roles, heartbeat)
    try:
        encoded = attempt()
    except Exception as error:  # any text may make any backend raise anything
        _logger.warning("%d texts together raised %r; looking for the one", len(tokenized), error)
        return _search(attempt)
    return EncodedEach(encoded.vectors, {}, encoded.padded_tokens)


@dataclass(frozen=True)
class _Attempt:
    """Encodes the texts, or some of them."""

    encoder: Encoder
    tokenized: Tokenized
    roles: Sequence[Role]
    heartbeat: Callable[[], None] | None

    def __call__(self, chosen: Sequence[int] | None = None) -> EncodedVectors:
        if self.heartbeat is not None:
            self.heartbeat()
        texts, roles = self.tokenized, self.roles
        if chosen is not None:
            texts, roles = texts.take(chosen), [roles[i] for i in chosen]
        return self.encoder.encode_tokenized(texts, roles, heartbeat=self.heartbeat)


def _search(attempt: _Attempt) -> EncodedEach:
    """Halve the texts until those that raise are alone."""
    count = len(attempt.tokenized)
    vectors = np.zeros((count, attempt.encoder.space.dimension), np.float32)  # (N, D)
    failures: dict[int, Exception] = {}
    suspects: set[int] = set()
    padded = 0
    # Similar lengths together, so that halves still pack well.
    open_parts = [np.argsort(attempt.tokenized.n_tokens, kind="stable")]
    while open_parts:
        part = open_parts.pop()
        try:
            encoded = attempt(part.tolist())
            vectors[part] = encoded.vectors
            padded += encoded.padded_tokens
        except Exception as error:  # as above
            index = int(part[0])
            if len(part) > 1:
                open_parts += np.array_split(part, 2)
            elif index not in suspects:
                # Once more by itself: what failed for a passing reason is not the text's fault.
                suspects.add(index)
                open_parts.append(part)
            else:
                _check_backend(attempt.encoder, attempt.roles[index], error)
                failures[index] = error
    return EncodedEach(vectors, failures, padded)


def _check_backend(encoder: Encoder, role: Role, error: Exception) -> None:
    """Make sure that a text, not the backend, is to blame."""
    try:
        encoder.encode([_KNOWN_GOOD], role)
    except Exception as second:
        raise BackendError(
            f"the backend fails for every text ({one_line(error)}); no text is to blame. "
            "Restart the worker, or try --backend torch --dtype float32"
        ) from second
