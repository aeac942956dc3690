"""Whether an encoder computes what a corpus' first encoder did: `<output>/_probe_vectors.json`.

Written once, by whichever worker comes first (exclusive creation), and compared by every other.
"""

from __future__ import annotations

from encoder.corpus_files import PROBE_VECTORS_FILE
from encoder.encoder import Encoder
from encoder.probe_vectors import ProbeVectors
from encoder.space import EmbeddingSpace
from pipelines.storage import Storage

__all__ = ["agree_on_probe_vectors", "check_probe_vectors", "read_probe_vectors"]


def agree_on_probe_vectors(storage: Storage, encoder: Encoder) -> ProbeVectors:
    """Leave an encoder's probe vectors with a corpus that has none, and compare them otherwise.

    Args:
        storage: The output folder.
        encoder: Of the corpus' space.

    Returns:
        What the encoder computes.

    Raises:
        SpaceMismatchError: It computes other vectors than those of the corpus, or the file is
            damaged.
        StorageError: The store does not answer.
    """
    if made := check_probe_vectors(storage, encoder):
        return made
    made = ProbeVectors.of(encoder)
    if storage.create(PROBE_VECTORS_FILE, made.to_json().encode()):
        return made
    return check_probe_vectors(storage, encoder) or made


def check_probe_vectors(storage: Storage, encoder: Encoder) -> ProbeVectors | None:
    """Compare an encoder with what a corpus keeps.

    Args:
        storage: The output folder.
        encoder: Of the corpus' space.

    Returns:
        What the encoder computes; None where the corpus keeps nothing.

    Raises:
        SpaceMismatchError: As in `agree_on_probe_vectors`.
        StorageError: The store does not answer.
    """
    known = read_probe_vectors(storage, encoder.space)
    return known and known.check(encoder, storage.below(PROBE_VECTORS_FILE))


def read_probe_vectors(storage: Storage, space: EmbeddingSpace) -> ProbeVectors | None:
    """Return the probe vectors of an output folder, or None where it has none.

    Raises:
        SpaceMismatchError: The file is damaged, or of another space than `space`.
    """
    text = storage.read(PROBE_VECTORS_FILE)
    if text is None:
        return None
    return ProbeVectors.from_json(text, space, storage.below(PROBE_VECTORS_FILE))
