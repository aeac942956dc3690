"""Known texts in every shard's forward: a device that breaks while a job runs is found.

A worker that has loaded its model is compared with the corpus (`pipelines.corpus.probe_vectors`).
After that its device or memory may break and go on giving vectors, others than before. So a few of
the same texts go with each shard, through the same graphs, and a shard beside which they come out
otherwise is not committed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from encoder.encoder import Encoder
from encoder.errors import BackendError, one_line
from encoder.probe_vectors import ProbeVectors
from encoder.space import Role
from encoder.tokenizer import Tokenized

__all__ = ["Canaries"]

_ROWS_FOR_EACH = 100
"""A small shard has one, so that many small files do not cost much more."""
_WHAT_TO_DO = (
    "the device or its memory is broken, or computes a batch otherwise than a text alone: take the "
    "machine out, or use --backend torch --dtype float32"
)


class Canaries:
    """Texts of which an encoder is known to make certain vectors.

    Args:
        encoder: The model.
        known: What it made of them when it was loaded.
        role: Of the rows that they go with.
    """

    def __init__(self, encoder: Encoder, known: ProbeVectors, role: Role) -> None:
        self._known = known
        self._role = role
        self._tokenized = encoder.tokenize(known.texts, role)

    def beside(self, rows: int) -> Tokenized:
        """Return those that go with a shard of so many rows; none with none."""
        count = -(-rows // _ROWS_FOR_EACH)
        return self._tokenized.take(range(min(count, len(self._tokenized))))

    def check(self, vectors: npt.NDArray[np.float32], failures: Mapping[int, Exception]) -> None:
        """Check that they came out as before.

        Args:
            vectors: Of the first texts, float32 (N, D).
            failures: What those raised that have no vector, by their place.

        Raises:
            BackendError: They did not, so no vector of that forward is to be trusted.
        """
        expected = "expected a text to have the vector that it had when the model was loaded, found"
        if failures:
            place, error = next(iter(failures.items()))
            text = self._known.texts[place]
            raise BackendError(f"{expected} that {text!r} raises {one_line(error)}; {_WHAT_TO_DO}")
        dtype, rows = self._known.provenance["dtype"], range(len(vectors))
        if unlike := self._known.unlike(self._role, vectors, dtype, rows):
            raise BackendError(f"{expected} another: {unlike}; {_WHAT_TO_DO}")
