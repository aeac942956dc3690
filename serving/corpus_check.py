"""Whether an endpoint's vectors can be compared with those of a corpus. Knows nothing of Ray."""

from __future__ import annotations

from encoder.corpus_space import read_corpus_space
from encoder.errors import SpaceMismatchError
from encoder.space import EmbeddingSpace

__all__ = ["check_corpus"]


def check_corpus(corpus: str, space: EmbeddingSpace) -> None:
    """Check that a corpus' vectors can be compared with those of a space.

    Raises:
        SpaceMismatchError: They cannot; names the fields that differ.
        InvalidInputError: There is no such corpus.
    """
    theirs = read_corpus_space(corpus)
    differences = space.differences(theirs)
    if differences:
        fields = "; ".join(
            f"{name}: there {there!r}, here {here!r}" for name, (here, there) in differences.items()
        )
        raise SpaceMismatchError(
            f"{corpus} holds vectors of space {theirs.fingerprint}, this endpoint makes "
            f"{space.fingerprint}: {fields}. Serve the model and settings it was embedded with, or "
            "embed it again"
        )
