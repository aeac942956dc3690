"""The bar that every export passes before it is written: the vectors of the model in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from encoder.backends.fidelity import MIN_EXACT_COSINE
from encoder.errors import BackendError
from encoder.model.description import ModelDescription
from encoder.probe_vectors import PROBE_TEXTS

__all__ = ["Fidelity", "Vectors", "check_texts", "require_fidelity"]

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fidelity:
    """How close an export is to the model in float32.

    Attributes:
        min_cosine: Of a text's vector with the model's, over all texts and both roles or poolings.
        runtime: What ran the export, with its version.
        n_texts: Texts that were compared.
    """

    min_cosine: float
    runtime: str
    n_texts: int


def check_texts(model: ModelDescription) -> tuple[str, ...]:
    """Return the fixed texts, and one that is longer than the model takes."""
    # A word of English is one token or more.
    return (*PROBE_TEXTS, "words " * model.space.max_seq_length)


def require_fidelity(what: str, found: Fidelity) -> Fidelity:
    """Return what was found.

    Raises:
        BackendError: It is below the bar.
    """
    if found.min_cosine < MIN_EXACT_COSINE:
        raise BackendError(
            f"expected {what} to give the model's float32 vectors (min cosine {MIN_EXACT_COSINE}), "
            f"found {found.min_cosine:.6f} in {found.runtime}; nothing was written: another "
            "version of that package may do better"
        )
    return found
