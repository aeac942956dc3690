"""The files in which a corpus says what its vectors are, for whoever must not mix spaces.

`<corpus>/_space.json` is written by the corpus job (with more in it than the space), and
`<corpus>/_probe_vectors.json` by the first of its encoders.
"""

from __future__ import annotations

import json

from encoder.errors import InvalidInputError, StorageError, one_line
from encoder.file_systems import what_to_check
from encoder.model.object_store import open_uri
from encoder.probe_vectors import ProbeVectors
from encoder.space import EmbeddingSpace

__all__ = [
    "CORPUS_SPACE_FILE",
    "PROBE_VECTORS_FILE",
    "file_of_corpus",
    "read_corpus_probe",
    "read_corpus_space",
]

CORPUS_SPACE_FILE = "_space.json"
PROBE_VECTORS_FILE = "_probe_vectors.json"


def read_corpus_space(corpus: str) -> EmbeddingSpace:
    """Return the space of a corpus' vectors.

    Args:
        corpus: Output folder of `twofold embed`, local or any fsspec URI.

    Raises:
        InvalidInputError: There is no such corpus, or its file does not say its space.
        StorageError: The file cannot be read.
    """
    where = file_of_corpus(corpus, CORPUS_SPACE_FILE)
    text = _read(corpus, CORPUS_SPACE_FILE)
    if text is None:
        raise InvalidInputError(
            f"{corpus} is no corpus: expected {CORPUS_SPACE_FILE} in it, found none, or no such "
            "folder or bucket; give the --output of an earlier `twofold embed`"
        )
    try:
        space = json.loads(text)["space"]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{where} does not say what its space is ({one_line(error)}); was it written by "
            "`twofold embed`?"
        ) from error
    return EmbeddingSpace.from_dict(space)


def read_corpus_probe(corpus: str, space: EmbeddingSpace) -> ProbeVectors | None:
    """Return what a corpus' first encoder made of some texts, or None where it says nothing.

    Args:
        corpus: As in `read_corpus_space`.
        space: Its space.

    Raises:
        StorageError: The file cannot be read.
        SpaceMismatchError: It is of another space, or damaged.
    """
    text = _read(corpus, PROBE_VECTORS_FILE)
    if text is None:
        return None
    return ProbeVectors.from_json(text, space, file_of_corpus(corpus, PROBE_VECTORS_FILE))


def file_of_corpus(corpus: str, name: str) -> str:
    """Return the address of a file of a corpus."""
    return f"{corpus.rstrip('/')}/{name}"


def _read(corpus: str, name: str) -> bytes | None:
    try:
        fs, root = open_uri(corpus)
        found: bytes = fs.cat_file(f"{root}/{name}")
    except FileNotFoundError:
        return None
    except Exception as error:
        # Each store's client raises classes of its own.
        where = file_of_corpus(corpus, name)
        raise StorageError(
            f"{where} cannot be read ({one_line(error)}); {what_to_check(where)}: without the "
            "right to list, a file that is not there is forbidden"
        ) from error
    return found
