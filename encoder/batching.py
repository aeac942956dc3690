"""Which texts are encoded together, and how long their rows are padded. Pure arithmetic.

Texts are sorted by length and cut into batches by a budget of *padded* tokens, because that is
what a forward costs. Row lengths come from a short list of buckets, because OpenVINO and CUDA
graphs prepare every new shape afresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Batch", "bucket_length", "padding_waste", "plan_batches"]

_MIN_STREAM_TOKENS = 64
"""Below this, two batches on two cores are slower than one: each has its fixed cost."""


@dataclass(frozen=True)
class Batch:
    """Texts of one forward.

    Attributes:
        indices: Positions of the texts in the input, longest first, int64 (B,).
        padded_length: Tokens that every row is padded to (T).
    """

    indices: npt.NDArray[np.int64]
    padded_length: int

    @property
    def padded_tokens(self) -> int:
        """Tokens that the forward computes: rows x padded length."""
        return len(self.indices) * self.padded_length


def bucket_length(length: int, max_seq_length: int | None = None) -> int:
    """Return the padded length of a text of `length` tokens.

    Steps of 1 below 32 tokens, 2 below 64, 4 below 128 and 8 above: rounding up never adds more
    than a sixteenth, and 512 tokens have 112 buckets.

    Args:
        length: Tokens of the text.
        max_seq_length: The model's limit, which no row exceeds.
    """
    step = min(8, 1 << max(0, (length - 1).bit_length() - 5))
    padded = -(-length // step) * step
    return padded if max_seq_length is None else max(length, min(padded, max_seq_length))


def plan_batches(
    lengths: npt.ArrayLike,
    *,
    max_batch_tokens: int,
    max_seq_length: int | None = None,
    streams: int = 1,
) -> list[Batch]:
    """Cut texts into batches of similar length, longest first.

    Args:
        lengths: Tokens of each text, (N,).
        max_batch_tokens: Budget of rows x padded length; a text beyond it is a batch by itself.
        max_seq_length: The model's limit, which no padded length exceeds.
        streams: Batches that are computed at once: few texts are shared out over all of them,
            because a stream without a batch is an idle core.

    Returns:
        Batches that hold every index exactly once, the longest texts first: memory runs out at
        once if it does, and the last batches of parallel streams are short.
    """
    tokens = np.asarray(lengths, dtype=np.int64)
    share = -(-int(tokens.sum()) // streams)
    max_batch_tokens = min(max_batch_tokens, max(share, _MIN_STREAM_TOKENS))
    order = np.argsort(-tokens, kind="stable")
    batches = []
    first = 0
    while first < len(order):
        padded_length = bucket_length(max(1, int(tokens[order[first]])), max_seq_length)
        rows = max(1, max_batch_tokens // padded_length)
        batches.append(Batch(order[first : first + rows], padded_length))
        first += rows
    return batches


def padding_waste(lengths: npt.ArrayLike, batches: Sequence[Batch]) -> float:
    """Return the share of the computed tokens that are padding, 0 to 1."""
    computed = sum(batch.padded_tokens for batch in batches)
    return 1.0 - float(np.sum(lengths)) / computed if computed else 0.0
