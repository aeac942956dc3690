"""Texts of three lengths: queries, descriptions, long documents."""

from __future__ import annotations

import random
import zipfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import descriptions, generated_texts
from benchmarks.queries import generated_queries, read_banking77
from encoder.tokenizer import Tokenizer

__all__ = ["KINDS", "TextSet", "load_texts"]

KINDS = ("queries", "descriptions", "long")
_DOCUMENTS = ("descriptions", "long")
_SEED = 0
_MOST_TEXTS = 10_000
_LONG_MEDIAN_WORDS = 697
_LONG_SPREAD = 0.45
"""As movie-reviews: median 697 words."""


@dataclass(frozen=True)
class TextSet:
    """Texts of one kind, and their tokens as this project's tokenizer counts them.

    Attributes:
        kind: One of `KINDS`.
        source: Where they are from.
        texts: In an order of their own, the same each time.
        lengths: Tokens of each, special ones included, cut at the model's limit.
    """

    kind: str
    source: str
    texts: list[str]
    lengths: list[int]

    @property
    def are_documents(self) -> bool:
        """Whether they are encoded as documents, not as queries."""
        return self.kind in _DOCUMENTS

    def first(self, tokens: int) -> int:
        """Return how many of the first texts make so many tokens, at least one, at most all."""
        total = 0
        for count, length in enumerate(self.lengths, start=1):
            total += length
            if total >= tokens:
                return count
        return len(self.lengths)


def load_texts(kind: str, data: Path, tokenizer: Tokenizer, tokens: int) -> TextSet:
    """Return texts that make `tokens` tokens together.

    Args:
        kind: One of `KINDS`.
        data: Folder of the data sets; what it lacks is generated, as long as that.
        tokenizer: Cuts at the model's limit.
        tokens: How many are wanted.

    Raises:
        ValueError: There are not so many.
    """
    source, texts = _read(kind, data)
    if source != "generated":
        random.Random(_SEED).shuffle(texts)
    lengths = [int(length) for length in tokenizer.tokenize(texts[:_MOST_TEXTS]).n_tokens]
    if sum(lengths) < tokens:
        raise ValueError(
            f"expected {tokens:,} tokens of {kind}, found {sum(lengths):,}; lower --tokens"
        )
    whole = TextSet(kind, source, texts[:_MOST_TEXTS], lengths)
    count = whole.first(tokens)
    return TextSet(kind, source, whole.texts[:count], lengths[:count])


def _read(kind: str, data: Path) -> tuple[str, list[str]]:
    if kind == "queries":
        folder = data / "banking77"
        if folder.is_dir():
            return "banking77", read_banking77(folder)
        return "generated", generated_queries(_MOST_TEXTS)
    if kind == "descriptions":
        return descriptions(data, _MOST_TEXTS)
    archives = sorted((data / "movie-reviews").glob("*.zip"))
    if archives:
        return "movie-reviews", _texts_of(archives[0])
    return "generated", generated_texts(
        _MOST_TEXTS // 20, median_words=_LONG_MEDIAN_WORDS, spread=_LONG_SPREAD
    )


def _texts_of(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.endswith(".txt"))
        return [files.read(name).decode("utf-8", errors="replace") for name in names]
