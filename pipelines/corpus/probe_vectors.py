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


def agree_on_probe_vectors(storage: Storage, encoder: Encoder) -> None:
    """Leave an encoder's probe vectors with a corpus that has none, and compare them otherwise.

    Args:
        storage: The output folder.
        encoder: Of the corpus' space.

    Raises:
        SpaceMismatchError: It computes other vectors than those of the corpus, or the file is
            damaged.
        StorageError: The store does not answer.
    """
    if check_probe_vectors(storage, encoder):
        return
    made = ProbeVectors.of(encoder)
    if not storage.create(PROBE_VECTORS_FILE, made.to_json().encode()):
        check_probe_vectors(storage, encoder)


def check_probe_vectors(storage: Storage, encoder: Encoder) -> bool:
    """Compare an encoder with what a corpus keeps; return whether it keeps anything.

    Args:
        storage: The output folder.
        encoder: Of the corpus' space.

    Raises:
        SpaceMismatchError: As in `agree_on_probe_vectors`.
        StorageError: The store does not answer.
    """
    known = read_probe_vectors(storage, encoder.space)
    if known is None:
        return False
    known.check(encoder, storage.below(PROBE_VECTORS_FILE))
    return True


def read_probe_vectors(storage: Storage, space: EmbeddingSpace) -> ProbeVectors | None:
    """Return the probe vectors of an output folder, or None where it has none.

    Raises:
        SpaceMismatchError: The file is damaged, or of another space than `space`.
    """
    text = storage.read(PROBE_VECTORS_FILE)
    if text is None:
        return None
    return ProbeVectors.from_json(text, space, storage.below(PROBE_VECTORS_FILE))
