"""Whether an endpoint's vectors can be compared with those of a corpus. Knows nothing of Ray."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from encoder.corpus_files import (
    PROBE_VECTORS_FILE,
    file_of_corpus,
    read_corpus_probe,
    read_corpus_space,
)
from encoder.differences import shown_differences
from encoder.encoder import Encoder
from encoder.errors import SpaceMismatchError
from encoder.space import EmbeddingSpace

__all__ = ["check_corpus", "check_corpus_space"]

_logger = logging.getLogger("ray.serve")


def check_corpus(corpus: str, encoder: Encoder) -> None:
    """Check that a corpus' vectors can be compared with those that an encoder makes.

    Raises:
        SpaceMismatchError: It is of another space, or computes other vectors in the same one.
        InvalidInputError: There is no such corpus.
        StorageError: It cannot be read.
    """
    check_corpus_space(corpus, encoder.space, encoder.provenance)
    known = read_corpus_probe(corpus, encoder.space)
    if known is None:
        _logger.warning(
            "%s has no %s: the spaces are equal, but whether this replica computes the same "
            "vectors is not known; the next run that embeds something writes it",
            corpus,
            PROBE_VECTORS_FILE,
        )
    else:
        known.check(encoder, file_of_corpus(corpus, PROBE_VECTORS_FILE))


def check_corpus_space(corpus: str, space: EmbeddingSpace, provenance: Mapping[str, str]) -> None:
    """Check that a corpus' vectors can be compared with those of a space.

    Args:
        corpus: Output folder of `twofold embed`, or its URI.
        space: The space.
        provenance: Of the model that spans it.

    Raises:
        SpaceMismatchError: They cannot; names the fields that differ.
        InvalidInputError: There is no such corpus.
        StorageError: It cannot be read.
    """
    theirs = read_corpus_space(corpus)
    differences = theirs.space.differences(space)
    if differences:
        advice = theirs.moved(provenance) or (
            "Serve the model and settings it was embedded with, or embed it again"
        )
        raise SpaceMismatchError(
            f"{corpus} holds vectors of space {theirs.fingerprint}, this endpoint makes "
            f"{space.fingerprint}: {shown_differences(differences)}. {advice}"
        )
