"""The files in which a corpus says what its vectors are, for whoever must not mix spaces.

`<corpus>/_space.json` is written by the corpus job (with more in it than the space), and
`<corpus>/_probe_vectors.json` by the first of its encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from encoder.errors import InvalidInputError, StorageError, one_line
from encoder.file_systems import what_to_check
from encoder.model.object_store import open_uri
from encoder.probe_vectors import ProbeVectors
from encoder.records import parse_file
from encoder.space import EmbeddingSpace

__all__ = [
    "CORPUS_SPACE_FILE",
    "CORPUS_SPACE_FORMAT",
    "PROBE_VECTORS_FILE",
    "CorpusSpace",
    "file_of_corpus",
    "parse_corpus_space",
    "read_corpus_probe",
    "read_corpus_space",
]

CORPUS_SPACE_FILE = "_space.json"
CORPUS_SPACE_FORMAT = 1
PROBE_VECTORS_FILE = "_probe_vectors.json"


@dataclass(frozen=True)
class CorpusSpace:
    """Of a `_space.json` what it says of the vectors; the layout stands beside it.

    Attributes:
        fingerprint: Of the space.
        space: Of every vector of the corpus.
        provenance: Model, revision and versions of the run that created the corpus.
    """

    fingerprint: str
    space: EmbeddingSpace
    provenance: dict[str, str] = field(default_factory=dict)

    def moved(self, provenance: Mapping[str, str]) -> str | None:
        """Say what to do where the corpus' model is another commit on the hub now.

        Args:
            provenance: Of a model whose space is another one.

        Returns:
            The words; None where it is another model, or not from the hub.
        """
        model = self.provenance.get("model", "").partition("@")[0]
        then, now = self.provenance.get("revision"), provenance.get("revision")
        is_same = model == provenance.get("model", "").partition("@")[0]
        if then is None or now is None or then == now or not is_same:
            return None
        return (
            f"The corpus was embedded at commit {then} of {model}, this is {now}: give --model "
            f"{model}@{then}, or a mirror of it (`twofold pull`)"
        )


_CORPUS_SPACE = TypeAdapter(CorpusSpace)


def read_corpus_space(corpus: str) -> CorpusSpace:
    """Return what a corpus says of its vectors.

    Args:
        corpus: Output folder of `twofold embed`, local or any fsspec URI.

    Raises:
        InvalidInputError: There is no such corpus, or its file does not say its space.
        NewerFormatError: A newer version of twofold wrote it.
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
        return parse_corpus_space(text, where)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{where} does not say what its space is ({error}); was it written by `twofold embed`?"
        ) from error


def parse_corpus_space(text: bytes | str, where: str) -> CorpusSpace:
    """Return what a `_space.json` says of the vectors.

    Args:
        text: The file's text.
        where: The file.

    Raises:
        NewerFormatError: A newer version of twofold wrote it.
        InvalidInputError: It holds no space, or one that is not its fingerprint's.
    """
    record = parse_file(_CORPUS_SPACE, text, CORPUS_SPACE_FORMAT, where)
    if record.fingerprint != record.space.fingerprint:
        raise InvalidInputError(
            f"its fingerprint is {record.fingerprint}, that of its space "
            f"{record.space.fingerprint}: one of them was changed"
        )
    return record


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
