"""Vectors that were computed lately, kept by role and tokens. For one event loop.

The text alone would not do: a query would get the vector of a document of the same words, and what
was cut at one end that of what was cut at the other. Of one replica all vectors are of one space.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from encoder.space import Role
from encoder.tokenizer import Tokenized

__all__ = ["VectorCache"]

_OVERHEAD_BYTES = 300
"""Of an entry beside its tokens and its vector: Python's objects (measured: 276)."""

_Key = tuple[Role, bytes]


class VectorCache:
    """Keeps the vectors that were asked for last.

    Args:
        max_bytes: Of memory; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._vectors: OrderedDict[_Key, npt.NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        """How many vectors are kept."""
        return len(self._vectors)

    def find(self, tokenized: Tokenized, role: Role) -> list[npt.NDArray[np.float32] | None]:
        """Return the vector of each of N texts, None where there is none."""
        if not self._max_bytes:
            return [None] * len(tokenized)
        keys = _keys(tokenized, role)
        found = [self._vectors.get(key) for key in keys]
        for key, vector in zip(keys, found, strict=True):
            if vector is not None:
                self._vectors.move_to_end(key)
        return found

    def keep(self, tokenized: Tokenized, role: Role, vectors: npt.NDArray[np.float32]) -> None:
        """Keep the vectors of N texts, (N, D), and let go of what was asked for longest ago."""
        if not self._max_bytes:
            return
        for key, vector in zip(_keys(tokenized, role), vectors, strict=True):
            if key not in self._vectors:
                # A copy: a row would hold its whole batch.
                self._vectors[key] = vector.copy()
                self._bytes += _size(key, vector)
            self._vectors.move_to_end(key)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._vectors.popitem(last=False))

    def clear(self) -> None:
        """Let go of all of them."""
        self._vectors.clear()
        self._bytes = 0


def _keys(tokenized: Tokenized, role: Role) -> list[_Key]:
    return [(role, ids.tobytes()) for ids in tokenized.input_ids]


def _size(key: _Key, vector: npt.NDArray[np.float32]) -> int:
    return _OVERHEAD_BYTES + len(key[1]) + vector.nbytes
