"""What a dialect asks for, and what it gets: inputs and a role in, vectors and receipts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from encoder.space import EmbeddingSpace, Role

__all__ = ["EmbedRequest", "Embedding", "Truncate"]


class Truncate(StrEnum):
    """What happens to an input of more than `max_seq_length` tokens."""

    END = "end"
    """Its end is cut off; the receipt says so."""
    START = "start"
    """Its beginning is cut off; the receipt says so."""
    NONE = "none"
    """The request is refused."""


@dataclass(frozen=True)
class EmbedRequest:
    """What a dialect asks for.

    Attributes:
        inputs: N texts, or N rows of token ids of this model's tokenizer.
        role: How they are pooled and prompted.
        truncate: What happens to long ones.
        dimensions: Leading dimensions to keep, or None for all.
    """

    inputs: Sequence[str] | Sequence[Sequence[int]]
    role: Role
    truncate: Truncate = Truncate.END
    dimensions: int | None = None


@dataclass(frozen=True)
class Embedding:
    """The vectors of one request, and their receipts.

    Attributes:
        vectors: float32 (N, D).
        n_tokens: Tokens that were encoded, int32 (N,).
        truncated: Which inputs were cut, bool (N,).
        role: The role that was used.
        space: The space of these vectors (of fewer dimensions than the endpoint's, where the
            request asked for that).
        tokenize_s: Seconds of tokenizing.
        queue_s: Seconds of waiting for the encoder.
        forward_s: Seconds of the forwards.
        cached: Inputs whose vector was kept from an earlier request.
    """

    vectors: npt.NDArray[np.float32]
    n_tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    role: Role
    space: EmbeddingSpace
    tokenize_s: float
    queue_s: float
    forward_s: float
    cached: int = 0

    @cached_property
    def total_tokens(self) -> int:
        """Tokens of all inputs."""
        return int(self.n_tokens.sum())

    @cached_property
    def truncated_inputs(self) -> list[int]:
        """Positions of the inputs that were cut."""
        positions: list[int] = self.truncated.nonzero()[0].tolist()
        return positions
