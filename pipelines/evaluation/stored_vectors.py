"""Ways to store a vector in fewer bytes, as what a search reads back: plain arrays, no files.

int8 and binary are those of `sentence_transformers.quantize_embeddings`: int8 divides the range
that each dimension has over the corpus into 255 steps (rounded here, cut off there), binary keeps
the signs. A vector is cut to its first dimensions and brought back to unit length before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["StoredAs", "ValueRange", "cut_to_unit", "read_back"]

_STEPS = 255

_Vectors = npt.NDArray[np.float32]


class StoredAs(StrEnum):
    """How the numbers of a vector are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"

    def bytes_of(self, dimensions: int) -> int:
        """Return the bytes of a vector.

        Args:
            dimensions: Its length; bits are padded to whole bytes.
        """
        bits = {"float32": 32, "float16": 16, "int8": 8, "binary": 1}[self.value]
        return -(-dimensions * bits // 8)


@dataclass(frozen=True)
class ValueRange:
    """Least and greatest value of each dimension over a corpus; two float32 (D,)."""

    least: _Vectors
    greatest: _Vectors

    @staticmethod
    def of(parts: Iterable[_Vectors]) -> ValueRange:
        """Return the range of vectors that come in parts, each (n, D), n at least 1 in one."""
        seen = [(part.min(axis=0), part.max(axis=0)) for part in parts if len(part)]
        return ValueRange(
            np.min([least for least, _ in seen], axis=0),
            np.max([greatest for _, greatest in seen], axis=0),
        )


def cut_to_unit(vectors: npt.NDArray[np.floating[Any]], dimensions: int) -> _Vectors:
    """Return the first dimensions of vectors (n, D) at unit length, float32 (n, dimensions)."""
    cut = vectors[:, :dimensions].astype(np.float32)
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    unit: _Vectors = cut / lengths
    return unit


def read_back(vectors: _Vectors, stored: StoredAs, values: ValueRange) -> _Vectors:
    """Return what a search reads of vectors that were stored, float32 (n, D).

    Args:
        vectors: float32 (n, D).
        stored: As what.
        values: What each dimension holds over the corpus, for int8.
    """
    if stored is StoredAs.FLOAT16:
        return vectors.astype(np.float16).astype(np.float32)
    if stored is StoredAs.INT8:
        step = (values.greatest - values.least) / np.float32(_STEPS)  # (D,)
        step[step == 0] = 1
        numbers = np.clip(np.rint((vectors - values.least) / step), 0, _STEPS)
        decoded: _Vectors = (numbers * step + values.least).astype(np.float32)
        return decoded
    if stored is StoredAs.BINARY:
        # With signs on both sides the dot product is D minus twice the Hamming distance, exactly.
        signs: _Vectors = np.where(vectors > 0, np.float32(1), np.float32(-1))
        return signs
    return vectors
