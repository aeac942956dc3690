"""Input that tests write, and the check that an output holds every row of it exactly once.

The check reads the output with pyarrow and fsspec alone, not with the code that wrote it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Corpus", "OutputFolder", "write_jsonl"]


@dataclass(frozen=True)
class Corpus:
    """What was written as input: texts by id, and the ids whose rows must be rejected."""

    texts: dict[str, str]
    rejected: frozenset[str]

    def __or__(self, other: Corpus) -> Corpus:
        return Corpus({**self.texts, **other.texts}, self.rejected | other.rejected)


def write_jsonl(file: Path | str, *, prefix: str, rows: int, reject_every: int = 10) -> Corpus:
    """Write rows `prefix-0`...; every `reject_every`th has a text of white space only."""
    texts, rejected, lines = {}, set(), []
    for number in range(rows):
        identity = f"{prefix}-{number}"
        bad = number % reject_every == 3
        text = "  \t " if bad else f"Row {number} of {prefix} says {'word ' * (number % 7)}."
        lines.append(json.dumps({"id": identity, "text": text}))
        if bad:
            rejected.add(identity)
        else:
            texts[identity] = text
    compression = "gzip" if str(file).endswith(".gz") else None
    with fsspec.open(str(file), "wt", auto_mkdir=True, compression=compression) as sink:
        sink.write("\n".join(lines) + "\n")
    return Corpus(texts, frozenset(rejected))


class OutputFolder:
    """The output of a job, local or on S3, as any reader sees it."""

    def __init__(self, uri: Path | str) -> None:
        self.uri = str(uri)
        self._fs, self._root = fsspec.core.url_to_fs(self.uri, use_listings_cache=False)

    def names(self, folder: str = "data") -> list[str]:
        """Return the names of a folder's Parquet files."""
        self._fs.invalidate_cache()
        path = f"{self._root}/{folder}"
        if not self._fs.exists(path):
            return []
        found = (path.rsplit("/", 1)[-1] for path in self._fs.find(path))
        return sorted(name for name in found if name.endswith(".parquet"))

    def table(self, name: str, folder: str = "data") -> pa.Table:
        """Return a shard, or with `folder="_rejects"` its rejects."""
        with self._fs.open(f"{self._root}/{folder}/{name}", "rb") as file:
            return pq.read_table(file)

    def footer(self, name: str) -> dict[str, Any]:
        """Return what a shard says of itself."""
        with self._fs.open(f"{self._root}/data/{name}", "rb") as file:
            return json.loads(pq.read_schema(file).metadata[b"twofold.shard"])

    def json(self, name: str) -> dict[str, Any]:
        """Return `_index.json` or `_report.json`."""
        self._fs.invalidate_cache()
        return json.loads(self._fs.cat_file(f"{self._root}/{name}"))

    def snapshot(self) -> dict[str, tuple[str, str]]:
        """Return, for every shard, its time of writing and the hash of its bytes."""
        found = {}
        for name in self.names():
            path = f"{self._root}/data/{name}"
            content = hashlib.sha256(self._fs.cat_file(path)).hexdigest()
            found[name] = (str(self._fs.modified(path)), content)
        return found

    def rejects(self) -> list[dict[str, Any]]:
        """Return the rows of all rejects files."""
        names = self.names("_rejects")
        return [row for name in names for row in self.table(name, "_rejects").to_pylist()]

    def vectors(self) -> dict[str, np.ndarray]:
        """Return the vector of every id."""
        found = {}
        for name in self.names():
            table = self.table(name)
            vectors = np.array(table["embedding"].to_pylist())
            found.update(zip(table["id"].to_pylist(), vectors, strict=True))
        return found

    def check(self, corpus: Corpus) -> None:
        """Assert that every row is there exactly once, and that the index says so."""
        names = self.names()
        rows: Counter[str] = Counter()
        for name in names:
            table, footer = self.table(name), self.footer(name)
            rows.update(table["id"].to_pylist())
            _check_shard(name, table, footer)
        assert [key for key, count in rows.items() if count > 1] == [], "rows that are there twice"
        assert set(corpus.texts) - set(rows) == set(), "rows that are lost"
        assert set(rows) - set(corpus.texts) == set(), "rows that nobody asked for"
        assert set(self.names("_rejects")) <= set(names), "rejects without their data file"
        rejects = Counter(row["id"] for row in self.rejects())
        assert rejects == Counter(corpus.rejected)
        index = self.json("_index.json")
        assert [shard["name"] for shard in index["shards"]] == names
        assert index["totals"]["rows"] == sum(rows.values())
        assert index["totals"]["rejected"] == sum(rejects.values())


def _check_shard(name: str, table: pa.Table, footer: dict[str, Any]) -> None:
    assert table.num_rows == footer["rows"], name
    assert footer["row_stop"] - footer["row_start"] == footer["documents"] + footer["rejected"]
    if table.num_rows:
        norms = np.linalg.norm(np.array(table["embedding"].to_pylist()), axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-3, err_msg=name)
