"""The queries: Banking77's where they are, else ones that are made of docstrings' words."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from benchmarks.corpus import generated_texts

__all__ = ["generated_queries", "read_banking77"]

_SEED = 0
_FILES = ("test.csv", "train.csv")
_MEDIAN_WORDS = 10
_SPREAD = 0.57
"""Banking77's texts: median 10 words, mean 11.7, p90 21, p99 42."""


def read_banking77(folder: Path) -> list[str]:
    """Return the texts of Banking77, each once, in an order of their own, the same each time.

    Its files are sorted by category: in their order neighbours would be much alike.

    Raises:
        FileNotFoundError: The files are not there.
    """
    texts: dict[str, None] = {}
    for name in _FILES:
        with (folder / name).open(newline="", encoding="utf-8") as file:
            texts.update(dict.fromkeys(row["text"] for row in csv.DictReader(file)))
    queries = list(texts)
    random.Random(_SEED).shuffle(queries)
    return queries


def generated_queries(count: int) -> list[str]:
    """Return texts as long as Banking77's, of the words of the standard library's docstrings."""
    return generated_texts(count, median_words=_MEDIAN_WORDS, spread=_SPREAD)
