"""How close vectors are to those that they should be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MIN_REDUCED_COSINE", "lowest_cosine"]

MIN_REDUCED_COSINE = 0.999
"""The fidelity bar of bfloat16 and float16 against float32, and of texts that share rows against
the same texts alone."""


def lowest_cosine(vectors: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Return the lowest cosine of any row (N, H) with its counterpart; -1 for NaN."""
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)  # (N,)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (vectors * expected).sum(axis=1) / norms
    return float(np.nan_to_num(cosines, nan=-1.0).min())
