"""How close vectors are to those that they should be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from encoder.backends.base import TokenBatch

__all__ = [
    "LEAST_COSINE",
    "MIN_EXACT_COSINE",
    "MIN_INT8_COSINE",
    "MIN_INT8_MEAN_COSINE",
    "MIN_REDUCED_COSINE",
    "PROOF_LENGTHS",
    "cosines",
    "lowest_cosine",
    "proof_batches",
    "proof_ids",
]

MIN_EXACT_COSINE = 0.99999
"""The fidelity bar of float32 computed one way (runtime, graph, export) against another."""

MIN_REDUCED_COSINE = 0.999
"""The fidelity bar of bfloat16 and float16 against float32, and of texts that share rows against
the same texts alone."""

MIN_INT8_MEAN_COSINE = 0.98
"""The fidelity bar of int8 against float32, for the mean of several texts. MiniLM reaches 0.99735
on 100 scientific abstracts."""

MIN_INT8_COSINE = 0.95
"""The bar of int8 against float32 for any text. Far below what good graphs give: it finds another
text or model, whose cosines are lower still."""

LEAST_COSINE = {
    "float32": MIN_EXACT_COSINE,
    "bfloat16": MIN_REDUCED_COSINE,
    "float16": MIN_REDUCED_COSINE,
    "int8": MIN_INT8_COSINE,
}
"""By precision: the fidelity bar of any text's vector against float32."""

PROOF_LENGTHS = ((12,), (12, 7, 3, 1))
"""Tokens of the texts of each batch: one text alone, and several of which some are padded."""


def proof_ids(length: int) -> npt.NDArray[np.int32]:
    """Return a text's ids, (length,): of which words does not matter.

    They are in every vocabulary, and none is a model's padding, whose embedding may be zero.
    """
    return np.arange(5, 5 + length, dtype=np.int32)


def proof_batches(pad_token_id: int) -> list[TokenBatch]:
    """Return batches on which another way to compute a model proves itself.

    Of one text and of several, of both poolings and of [CLS] alone.

    Args:
        pad_token_id: What the model expects in padding.
    """
    return [
        TokenBatch.pad(
            [proof_ids(length) for length in lengths],
            np.full(len(lengths), all_cls) | (np.arange(len(lengths)) % 2 == first),
            padded_length=max(lengths),
            pad_token_id=pad_token_id,
        )
        for lengths in PROOF_LENGTHS
        for all_cls, first in ((False, 0), (False, 1), (True, 0))
    ]


def cosines(
    vectors: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the cosine of each row (N, H) with its counterpart, (N,); -1 for NaN."""
    found, known = vectors.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(known, axis=1)  # (N,)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine: npt.NDArray[np.float64] = (found * known).sum(axis=1) / norms
    return np.nan_to_num(cosine, nan=-1.0)


def lowest_cosine(vectors: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Return the lowest cosine of any row (N, H) with its counterpart; -1 for NaN."""
    return float(cosines(vectors, expected).min())
