"""The encoder's exceptions. Every message says what was expected, what was found and what to do.

    TwofoldError
    ├── InvalidInputError      a text, a setting or a file that the caller can correct
    ├── ModelLoadError         a model that cannot be loaded as a known embedding space
    ├── SpaceMismatchError     two vectors, folders or services of different embedding spaces
    │   └── NewerFormatError   a file of a newer twofold: whether they are is not known here
    ├── BackendError           the forward failed for a reason that is not the input's
    │   └── NonFiniteVectorsError    some rows came out as NaN, infinite or zero; names them
    └── StorageError           a store or disk does not answer, refuses, or is full

`pipelines.errors` and `serving.errors` extend this tree.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "InvalidInputError",
    "ModelLoadError",
    "NewerFormatError",
    "NonFiniteVectorsError",
    "SpaceMismatchError",
    "StorageError",
    "TwofoldError",
    "one_line",
]


class TwofoldError(Exception):
    """Base of every error that twofold raises on purpose; its text is fit to show to a user."""


class InvalidInputError(TwofoldError):
    """A text, a setting or a file is not what was asked for, and the caller can correct it."""


class ModelLoadError(TwofoldError):
    """A model cannot be loaded, or its files do not say which embedding space it spans."""


class SpaceMismatchError(TwofoldError):
    """Vectors of two embedding spaces would be mixed or compared."""


class NewerFormatError(SpaceMismatchError):
    """A newer version of twofold wrote a file: what it says of its vectors is not known here."""


class BackendError(TwofoldError):
    """The forward pass failed for a reason that is not one text's (device lost, out of memory)."""


class StorageError(TwofoldError):
    """A store or disk does not answer, refuses or is full, which says nothing of what it holds."""


class NonFiniteVectorsError(BackendError):
    """Some rows' vectors are not finite, or are zero and cannot be normalized.

    Attributes:
        indices: The rows, as positions in the input.
    """

    def __init__(self, indices: list[int]) -> None:
        shown = ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else "")
        super().__init__(
            f"expected finite, non-zero vectors, found {len(indices)} others, for the rows "
            f"{shown}; leave these rows out or encode with dtype float32"
        )
        self.indices = indices

    def __reduce__(self) -> tuple[type[NonFiniteVectorsError], tuple[list[int]]]:
        # By default exceptions are unpickled from their message: Ray sends them between processes.
        return type(self), (self.indices,)


def one_line(error: BaseException) -> str:
    """Return somebody else's error as "Type: message" without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())
