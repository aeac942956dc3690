"""The texts of a benchmark, and the files that the job reads them from."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from encoder.tokenizer import Tokenizer
from pipelines.docstrings import collect_docstrings, standard_library

__all__ = [
    "InputFormat",
    "descriptions",
    "first_tokens",
    "generated_texts",
    "read_folder",
    "sample",
    "write_input",
]

InputFormat = Literal["parquet", "jsonl"]

_SEED = 0
_MEDIAN_WORDS = 51
_SPREAD = 0.625
_MOST_WORDS = 12_000
_DOCSTRINGS = 2_000
"""Docstrings that the words come from."""


def read_folder(folder: Path) -> list[str]:
    """Return the `text` of every line of a folder's *.jsonl and *.jsonl.gz files, in their order.

    Raises:
        FileNotFoundError: There is no such file.
    """
    files = sorted(file for file in folder.iterdir() if file.name.endswith((".jsonl", ".jsonl.gz")))
    if not files:
        raise FileNotFoundError(f"expected *.jsonl or *.jsonl.gz in {folder}, found none")
    return [json.loads(line)["text"] for file in files for line in _lines(file)]


def _lines(file: Path) -> Iterator[bytes]:
    content = file.read_bytes()
    # Bytes end lines at newlines alone; str.splitlines would also cut at U+2028 within a text.
    yield from (gzip.decompress(content) if file.suffix == ".gz" else content).splitlines()


def descriptions(data: Path | None, count: int) -> tuple[str, list[str]]:
    """Return "debian" and its descriptions, or "generated" and so many texts of their lengths.

    Args:
        data: Folder of the data sets; None generates, and so does one without Debian's.
        count: Texts to generate.
    """
    folder = None if data is None else data / "debian"
    if folder is not None and folder.is_dir():
        return "debian", read_folder(folder)
    return "generated", generated_texts(count)


def generated_texts(
    count: int, *, median_words: float = _MEDIAN_WORDS, spread: float = _SPREAD
) -> list[str]:
    """Return texts made of the words of the standard library's docstrings; the same ones each time.

    Their lengths are log-normal, by default as those of Debian's package descriptions are: median
    51 words, mean 62, p90 113 (there 109), p99 218 (there 209).
    """
    words = _words(standard_library())
    chosen = np.random.default_rng(_SEED)
    lengths = chosen.lognormal(np.log(median_words), spread, count).astype(int)
    return [" ".join(chosen.choice(words, min(n, _MOST_WORDS))) for n in np.maximum(lengths, 1)]


@cache
def _words(folder: Path) -> npt.NDArray[np.str_]:
    """Return the words of a folder's docstrings; read once, since that takes a second."""
    docstrings = collect_docstrings(folder, _DOCSTRINGS)
    return np.array([word for docstring in docstrings for word in docstring.text.split()])


def sample(texts: Sequence[str], count: int) -> list[str]:
    """Return `count` texts from all over a corpus, in its order, the same ones each time.

    Raises:
        ValueError: There are not as many.
    """
    if count > len(texts):
        raise ValueError(f"expected at least {count:,} texts, found {len(texts):,}; lower --docs")
    chosen = sorted(random.Random(_SEED).sample(range(len(texts)), count))
    return [texts[i] for i in chosen]


def first_tokens(texts: Sequence[str], tokenizer: Tokenizer, limit: int | None) -> list[str]:
    """Return the first texts that make `limit` tokens together; all without a limit."""
    if limit is None:
        return list(texts)
    total = np.cumsum(tokenizer.tokenize(texts).n_tokens)
    return list(texts[: int(np.searchsorted(total, limit)) + 1])


def write_input(
    texts: Sequence[str], folder: Path, kind: InputFormat, *, rows_per_file: int
) -> None:
    """Write texts as files of `rows_per_file` rows with the columns id and text.

    Args:
        texts: The texts.
        folder: Must not exist.
        kind: `parquet` or `jsonl`.
        rows_per_file: Rows of a file, and so of a work unit.
    """
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, len(texts), rows_per_file)):
        rows = [
            {"id": f"{start + i:06d}", "text": text}
            for i, text in enumerate(texts[start : start + rows_per_file])
        ]
        file = folder / f"texts-{number:04d}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
