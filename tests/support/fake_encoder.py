"""An encoder without a model, for tests of what is around it.

Its vectors are a hash of the tokens and the role: equal texts of one role, and only they, have
equal ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from encoder.encoder import Encoded, EncodedVectors
from encoder.probe_vectors import PROBE_TEXTS
from encoder.space import EmbeddingSpace, Pooling, Role, RoleEncoding
from encoder.tokenizer import Tokenized

__all__ = ["DIMENSION", "SPACE", "FakeEncoder", "vector_of"]

DIMENSION = 4
MAX_SEQ_LENGTH = 8
SPACE = EmbeddingSpace(
    weights_sha256="a" * 64,
    tokenizer_sha256="b" * 64,
    query=RoleEncoding(Pooling.MEAN),
    document=RoleEncoding(Pooling.CLS),
    normalize=True,
    max_seq_length=MAX_SEQ_LENGTH,
    truncate_dim=None,
    dimension=DIMENSION,
)


class FakeEncoder:
    """One token a word, cut at 8; texts that hold the word "poison" make the forward raise.

    Attributes:
        forwards: Number of texts of each forward, known ones left out.
        on_forward: Called before every forward; may raise or wait.
        is_broken: Whether it gives other vectors than before, without a word.
    """

    max_batch_tokens = 1024
    max_concurrent_tokens = 2048

    def __init__(self, space: EmbeddingSpace = SPACE) -> None:
        self.space = space
        self.provenance = {"model": "fake", "backend": "fake", "dtype": "float32", "device": "cpu"}
        self.forwards: list[int] = []
        self.on_forward: Callable[[], None] = lambda: None
        self.is_broken = False

    def tokenize(self, texts: Sequence[str], role: Role, *, keep_end: bool = False) -> Tokenized:
        words = [text.split() for text in texts]
        kept = slice(-MAX_SEQ_LENGTH, None) if keep_end else slice(MAX_SEQ_LENGTH)
        ids = [[_word_id(word) for word in line[kept]] for line in words]
        return Tokenized(
            [np.array(row, np.int32) for row in ids],
            np.array([len(row) for row in ids], np.int32),
            np.array([len(line) > MAX_SEQ_LENGTH for line in words], bool),
        )

    def tokenize_ids(
        self, id_rows: Sequence[Sequence[int]], role: Role, *, keep_end: bool = False
    ) -> Tokenized:
        kept = slice(-MAX_SEQ_LENGTH, None) if keep_end else slice(MAX_SEQ_LENGTH)
        return Tokenized(
            [np.array(row[kept], np.int32) for row in id_rows],
            np.array([min(len(row), MAX_SEQ_LENGTH) for row in id_rows], np.int32),
            np.array([len(row) > MAX_SEQ_LENGTH for row in id_rows], bool),
        )

    def windows(self, text: str, *, overlap: int, role: Role) -> list[tuple[int, int]]:
        """Cut at every 8 words, without an overlap."""
        ends = [i for i, character in enumerate(f"{text} ") if character == " "]
        cuts = [0, *(end for n, end in enumerate(ends, 1) if n % MAX_SEQ_LENGTH == 0)]
        edges = cuts if cuts[-1] == len(text) else [*cuts, len(text)]
        starts = [edge + 1 if edge else 0 for edge in edges[:-1]]
        return list(zip(starts, edges[1:], strict=True))

    def encode(self, texts: Sequence[str], role: Role) -> Encoded:
        tokenized = self.tokenize(texts, role)
        found = self.encode_tokenized(tokenized, role)
        return Encoded(found.vectors, tokenized.n_tokens, tokenized.truncated, found.padded_tokens)

    def encode_tokenized(
        self,
        tokenized: Tokenized,
        roles: Role | Sequence[Role],
        *,
        heartbeat: Callable[[], None] | None = None,
    ) -> EncodedVectors:
        each = [roles] * len(tokenized) if isinstance(roles, Role) else roles
        is_known = [row.tolist() in _PROBE_ROWS for row in tokenized.input_ids]
        if not all(is_known) or not is_known:
            self.forwards.append(len(tokenized) - sum(is_known))
            self.on_forward()
        if any(_POISON in ids for ids in tokenized.input_ids):
            raise RuntimeError("a kernel said no\n  and more lines")
        vectors = [_vector(ids, role) for ids, role in zip(tokenized.input_ids, each, strict=True)]
        if heartbeat is not None:
            heartbeat()
        found = np.array(vectors, np.float32).reshape(-1, DIMENSION)
        return EncodedVectors(
            -found if self.is_broken else found,
            padded_tokens=int(tokenized.n_tokens @ (2 - np.array(is_known, np.int32))),
        )

    def expect_short_texts(self) -> None:
        pass

    def close(self) -> None:
        pass


def vector_of(text: str, role: Role = Role.DOCUMENT) -> np.ndarray:
    """Return the fake encoder's vector of a text."""
    return _vector(FakeEncoder().tokenize([text], role).input_ids[0], role)


def _vector(ids: np.ndarray, role: Role) -> np.ndarray:
    seed = [len(ids), *map(int, ids), list(Role).index(role)]
    vector = np.random.default_rng(seed).normal(size=DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _word_id(word: str) -> int:
    return zlib.crc32(word.encode()) & 0x7FFFFFFF


_POISON = _word_id("poison")
_PROBE_ROWS = [row.tolist() for row in FakeEncoder().tokenize(PROBE_TEXTS, Role.QUERY).input_ids]
"""Texts that are compared when an encoder is loaded, and go with shards; tests mean their own."""
