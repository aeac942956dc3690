"""A corpus as its readers see it, and the rows that they are to find of a source.

Reads with pyarrow and json alone; the rows are made with the fake encoder from what a file is known
to hold (`support.lake`).
"""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from encoder.space import Role
from pipelines.actor.prepare import text_hash
from pipelines.settings import OnLong
from support.fake_encoder import MAX_SEQ_LENGTH, FakeEncoder, vector_of
from support.lake import Content, Document

__all__ = ["CorpusReader", "Expected", "ReadShard"]

Values = tuple[Any, ...]
"""id, tag where it is carried, chunk_index, char_start, char_end, n_tokens, truncated, text_hash,
embedding: a row as it can be counted."""


@dataclass(frozen=True)
class ReadShard:
    """A shard that was read: its rows, and what its footer says."""

    rows: tuple[Values, ...]
    footer: dict[str, Any]
    unit: str

    @property
    def source(self) -> str:
        return str(self.footer["source"])

    @property
    def version(self) -> str:
        return str(self.footer["version"])


@dataclass
class CorpusReader:
    """The output folder of a job on a local disk."""

    folder: Path
    _shards: dict[Values, ReadShard] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the names of the shards that exist."""
        return sorted(path.name for path in (self.folder / "data").glob("[!.]*"))

    def index(self) -> dict[str, Any] | None:
        file = self.folder / "_index.json"
        return json.loads(file.read_text()) if file.exists() else None

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder / "_report.json").read_text())
        return report

    def listed(self) -> list[str]:
        """Return the names of the live shards."""
        index = self.index()
        return [] if index is None else [shard["name"] for shard in index["shards"]]

    def shard(self, name: str) -> ReadShard:
        """Read a shard; one that is the same file as before is not read again."""
        file = self.folder / "data" / name
        status = file.stat()
        key = (name, status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._shards:
            table = pq.read_table(io.BytesIO(file.read_bytes()))
            rows = (
                tuple(tuple(v) if isinstance(v, list) else v for v in row.values())
                for row in table.to_pylist()
            )
            footer = json.loads(table.schema.metadata[b"twofold.shard"])
            self._shards[key] = ReadShard(tuple(rows), footer, name.partition("-")[0])
        return self._shards[key]

    def live(self) -> dict[str, list[ReadShard]]:
        """Return the live shards of each source."""
        return self._by_source(self.listed())

    def unlisted(self) -> dict[str, list[ReadShard]]:
        """Return the shards of each source that exist and are not live."""
        return self._by_source(sorted({*self.names()} - {*self.listed()}))

    def rejects(self, source: str) -> list[dict[str, Any]]:
        """Return the rejected rows of the live shards of a source."""
        names = [name for name in self.listed() if self.shard(name).source == source]
        files = [self.folder / "_rejects" / name for name in names]
        there = [file.read_bytes() for file in files if file.exists()]
        return [row for found in there for row in pq.read_table(io.BytesIO(found)).to_pylist()]

    def snapshot(self) -> dict[str, Values]:
        """Return what tells for each file but `_report.json` whether it was written again."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        status = {str(path): path.stat() for path in files if path.name != "_report.json"}
        return {path: (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in status.items()}

    def _by_source(self, names: list[str]) -> dict[str, list[ReadShard]]:
        found: dict[str, list[ReadShard]] = {}
        for name in names:
            shard = self.shard(name)
            found.setdefault(shard.source, []).append(shard)
        return found


@dataclass(frozen=True)
class Expected:
    """What must become of sources.

    Attributes:
        on_long: What becomes of documents of more than 8 words.
        has_tag: Whether the column `tag` is carried.
    """

    on_long: OnLong
    has_tag: bool

    @cached_property
    def _known(self) -> dict[tuple[str, Content], Counter[Values]]:
        return {}

    def rows(self, uri: str, content: Content) -> Counter[Values]:
        """Return the rows of a source, each as often as it is to be there."""
        if (uri, content) not in self._known:
            rows = (row for document in content.documents(uri) for row in self._rows(document))
            self._known[uri, content] = Counter(rows)
        return self._known[uri, content]

    def texts(self, uri: str, content: Content) -> dict[bytes, tuple[int, ...]]:
        """Return the tokens of each text that is embedded of a source, by its hash."""
        parts = [
            document.text[start:stop]
            for document in content.documents(uri)
            for start, stop in self._spans(document.text)
        ]
        tokens = FakeEncoder().tokenize(parts, Role.DOCUMENT).input_ids
        return {
            text_hash(part): tuple(ids.tolist()) for part, ids in zip(parts, tokens, strict=True)
        }

    def rejects(self, uri: str, content: Content) -> list[tuple[str | None, str]]:
        """Return (id as text, part of the reason) of the rows that are rejected of a source."""
        too_long = [
            (str(document.id), "text is longer than max_seq_length")
            for document in content.documents(uri)
            if not self._spans(document.text)
        ]
        return [*content.rejects(uri), *too_long]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        if len(text.split()) <= MAX_SEQ_LENGTH or self.on_long is OnLong.TRUNCATE:
            return [(0, len(text))]
        if self.on_long is OnLong.REJECT:
            return []
        return FakeEncoder().windows(text, overlap=0, role=Role.DOCUMENT)

    def _rows(self, document: Document) -> list[Values]:
        carried = (document.id, *([document.tag] if self.has_tag else []))
        rows = []
        for number, (start, stop) in enumerate(self._spans(document.text)):
            text = document.text[start:stop]
            words = len(text.split())
            tokens = (min(words, MAX_SEQ_LENGTH), words > MAX_SEQ_LENGTH)
            vector = tuple(vector_of(text).tolist())
            rows.append((*carried, number, start, stop, vector, *tokens, text_hash(text)))
        return rows
