"""What an encoder makes of a few fixed texts: whether two encoders compute the same.

Two encoders of one embedding space were given the same files and settings. That they compute the
same of them no fingerprint can say: a config.json may have been edited, a library may have changed,
a device may be broken. So a corpus keeps the vectors of its first encoder in
`<corpus>/_probe_vectors.json`, and every later one is compared with them.

The file is for other programs, too: it holds texts and their vectors in plain JSON.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter

from encoder.backends.fidelity import LEAST_COSINE, cosines
from encoder.encoder import Encoder
from encoder.errors import (
    BackendError,
    InvalidInputError,
    NonFiniteVectorsError,
    SpaceMismatchError,
)
from encoder.records import parse_file
from encoder.space import EmbeddingSpace, Role

__all__ = ["PROBE_TEXTS", "SHORT_PROBE_TEXTS", "ProbeVectors", "least_cosine_between"]

SHORT_PROBE_TEXTS = (
    "jobs",
    "Who wrote it?",
    "how to reverse a list in python",
    "Café naïve 東京 — 42 % of 3.14, e-mail: a@b.example",
    "Which sentence talks about the skills that workers need for new kinds of work?",
    "Return an iterator over the lines of the file; the file is closed when it is exhausted. " * 2,
    "The economies of the region continue to adopt digital technologies, and policy makers ask how "
    "to prepare the workforce; little is known of the skills that are needed. " * 3,
    "0 1 2 3 5 8 13 21 34 55 89 144 233 377 610 { } [ ] ( ) < > = + - * / | & ^ % $ # @ ! " * 2,
)
"""Fixed texts of 3 to 130 tokens: words, a question, prose, digits, other scripts, punctuation."""

PROBE_TEXTS = (
    *SHORT_PROBE_TEXTS,
    " ".join(
        f"Line {n} of file {n * n % 89} is read by worker {n * 7 % 13}, which counts {n**3 % 997}."
        for n in range(1, 81)
    ),
)
"""Those, and one of more than 1024 tokens: how far attention reaches (local attention, scaled
positions) and where texts are cut shows in no shorter one. A ModernBERT whose config.json made it
look four times as far passed all of the others; at 194 tokens its cosine was 0.91."""

_FORMAT = 1
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class ProbeVectors:
    """Some texts, and what an encoder made of them.

    Attributes:
        fingerprint: Of the embedding space.
        host: Name of the machine.
        texts: The texts, N of them.
        vectors: Of each role, float32 (N, D).
        provenance: Of the encoder: its model, backend, dtype, device and versions.
    """

    fingerprint: str
    host: str
    texts: tuple[str, ...]
    vectors: Mapping[Role, npt.NDArray[np.float32]]
    provenance: Mapping[str, str]

    @classmethod
    def of(cls, encoder: Encoder, texts: Sequence[str] = PROBE_TEXTS) -> ProbeVectors:
        """Encode texts in both roles, without those of which the encoder makes no usable vector.

        Raises:
            BackendError: The forward failed, or no text is left.
        """
        kept: list[str] = []
        vectors: dict[Role, list[npt.NDArray[np.float32]]] = {role: [] for role in Role}
        for text in texts:
            # One by one: of many together a backend may need graphs that nobody has use for yet.
            try:
                found = {role: encoder.encode([text], role).vectors[0] for role in Role}
            except NonFiniteVectorsError:
                continue  # such a row is rejected wherever it comes, so it is never stored
            if all(vector.any() for vector in found.values()):
                kept.append(text)
                for role in Role:
                    vectors[role].append(found[role])
        if not kept:
            raise BackendError(
                f"expected vectors of {len(texts)} texts, found none that are finite and not zero; "
                "use dtype float32, or another device"
            )
        return cls(
            encoder.space.fingerprint,
            platform.node(),
            tuple(kept),
            {role: np.stack(rows) for role, rows in vectors.items()},
            encoder.provenance,
        )

    def check(self, encoder: Encoder, where: str) -> ProbeVectors:
        """Check that an encoder of the same space makes the same vectors of the same texts.

        Args:
            encoder: The encoder.
            where: The file that these vectors are from, for the error.

        Returns:
            What it makes of them.

        Raises:
            SpaceMismatchError: It makes others.
            BackendError: The forward failed, or makes no usable vector of any text.
        """
        here = ProbeVectors.of(encoder, self.texts)
        rows = [self.texts.index(text) for text in here.texts]
        for role in Role:
            # A text of which it makes no usable vector counts as the same: no such row is stored.
            if unlike := self.unlike(role, here.vectors[role], here.provenance["dtype"], rows):
                raise SpaceMismatchError(
                    f"{here.host} computes other vectors than {self.host or 'the host'} did that "
                    f"wrote {where}, though weights and settings are the same: {unlike}; "
                    f"{_difference(self.provenance, here.provenance)}. Compare config.json and "
                    "the versions, and what other machines say: this one may be broken. `twofold "
                    "verify --sample 1` on another says whether the file is right. If it is, use "
                    "what made it, or another output; if not, delete it"
                )
        return here

    def unlike(
        self,
        role: Role,
        vectors: npt.NDArray[np.float32],
        dtype: str,
        rows: Sequence[int] | None = None,
    ) -> str | None:
        """Say which text's vectors differ most, or None where precision explains how they differ.

        Args:
            role: As which the texts were encoded.
            vectors: Of the same texts, float32 (N, D); of none, nothing differs.
            dtype: Precision in which they were computed.
            rows: Which of the texts these are; None for all.
        """
        if not len(vectors):
            return None
        rows = range(len(self.texts)) if rows is None else rows
        known = self.vectors[role][list(rows)]  # (N, D)
        least = least_cosine_between(self.provenance["dtype"], dtype)
        found = cosines(vectors, known)  # (N,)
        if found.min() < least:
            text = self._shown(rows[int(found.argmin())])
            return (
                f"{text} as {role.value} has cosine {found.min():.5f}, expected {least:.5f} or more"
            )
        # A cosine does not see lengths, and where vectors are not normalized they count. As far
        # apart as unit vectors of that cosine are.
        most = math.sqrt(2 * (1 - least))
        lengths = np.linalg.norm(vectors, axis=1) / np.linalg.norm(known, axis=1)
        off = np.abs(lengths - 1)  # (N,)
        if off.max() > most:
            text = self._shown(rows[int(off.argmax())])
            return (
                f"{text} as {role.value} is {lengths[off.argmax()]:.3f} times "
                f"as long, expected {1 - most:.3f} to {1 + most:.3f}"
            )
        return None

    def _shown(self, row: int) -> str:
        return repr(self.texts[row][:_SHOWN_CHARACTERS])

    def to_json(self) -> str:
        """Return the file's text; numbers have 7 digits, about those of a float32."""
        return json.dumps(
            {
                "format": _FORMAT,
                "fingerprint": self.fingerprint,
                "host": self.host,
                "provenance": dict(self.provenance),
                "texts": self.texts,
                **{role.value: _rounded(self.vectors[role]) for role in Role},
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes, space: EmbeddingSpace, where: str) -> ProbeVectors:
        """Rebuild them from a file.

        Args:
            text: The file's text.
            space: The embedding space that they must be of.
            where: The file, for the error.

        Raises:
            NewerFormatError: A newer version of twofold wrote it.
            SpaceMismatchError: The file is of another space, or damaged, so that nobody can know.
        """
        try:
            found = parse_file(_FILE, text, _FORMAT, where)
            if found.fingerprint != space.fingerprint:
                raise InvalidInputError(f"space {found.fingerprint}, expected {space.fingerprint}")
            with np.errstate(over="ignore"):  # to infinity, which is refused below
                vectors = {
                    role: np.array(getattr(found, role.value), float).astype(np.float32)
                    for role in Role
                }
            expected = (len(found.texts), space.dimension)
            if shapes := {v.shape for v in vectors.values()} - {expected}:
                raise InvalidInputError(f"vectors {shapes}, expected {expected}")
            if not all(np.isfinite(v).all() and v.any(axis=1).all() for v in vectors.values()):
                raise InvalidInputError("vectors that are zero or not finite")
            if not found.texts or found.provenance.get("dtype") not in LEAST_COSINE:
                raise InvalidInputError("no texts, or a precision that is not known")
        except (InvalidInputError, ValueError) as error:  # rows of many lengths are no array
            raise SpaceMismatchError(
                f"{where} does not hold the probe vectors of its corpus ({error}); restore the "
                "file, or delete it: the next run that embeds something writes those of its encoder"
            ) from error
        return cls(space.fingerprint, found.host, found.texts, vectors, found.provenance)


@dataclass(frozen=True)
class _ProbeFile:
    """The content of a `_probe_vectors.json`; the vectors are (N, D) each."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    format: int
    fingerprint: str
    host: str
    provenance: dict[str, str]
    texts: tuple[str, ...]
    query: list[list[float]]
    document: list[list[float]]


_FILE = TypeAdapter(_ProbeFile)


def least_cosine_between(one: str, other: str) -> float:
    """Return the cosine that vectors of one text have at least, each computed in a precision.

    Each may be so far from float32 as its own bar lets it, in opposite directions.

    Args:
        one: A precision ("bfloat16").
        other: Another, or the same.
    """
    return math.cos(math.acos(LEAST_COSINE[one]) + math.acos(LEAST_COSINE[other]))


def _difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    names = sorted(there.keys() | here.keys())
    said = [
        f"{name} there {there.get(name)}, here {here.get(name)}"
        for name in names
        if there.get(name) != here.get(name)
    ]
    return ", ".join(said) or "versions and precision are the same"


def _rounded(vectors: npt.NDArray[np.float32]) -> list[list[float]]:
    return [[float(f"{value:.7g}") for value in row] for row in vectors]
