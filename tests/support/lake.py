"""Source files of every format with what must become of their rows, and a lake that they change in.

The oracle of tests that follow a corpus through its life: what a file holds is known because it was
made here, not because a reader of the job said so.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["KINDS", "Content", "Document", "Lake", "Row"]

_REASONS = {
    "null": "text is null",
    "empty": "text is empty",
    "blank": "text is only white space",
    "number": "text is not a string (found number)",
    "no id": "id is null",
    "poison": "the model raised ",
    "broken": "line is not valid JSON",
    "short": "row has too few fields",
    "no text": "is not valid UTF-8",
}
"""Kind of a row that is rejected -> how its reason begins, or what stands in it."""
KINDS = {
    "jsonl": ["null", "empty", "blank", "number", "no id", "poison", "broken", "no text"],
    "parquet": ["null", "empty", "blank", "no id", "poison", "no text"],
    "csv": ["empty", "blank", "no id", "poison", "short", "no text"],
    "txt": ["empty", "blank", "poison", "no text"],
}
"""Ending of a format -> kinds of bad rows that it can hold."""
_UNREADABLE = "cannot be read"
_NOT_UTF8 = b"\xff\xfe"
_CUT_AT = 15
"""Bytes that are left of a damaged file: of gzip more than its header, of Parquet no footer."""


@dataclass(frozen=True)
class Row:
    """A row of a source; `kind` is "good" or one of `KINDS`."""

    kind: str
    id: int | str
    text: str
    tag: str | None = None


@dataclass(frozen=True)
class Document:
    """A row that is to be embedded."""

    id: int | str
    text: str
    tag: str | None


@dataclass(frozen=True)
class Content:
    """What a source file holds.

    Attributes:
        ending: Its format, as names end: jsonl, parquet, csv, txt, and .gz behind all but Parquet.
        rows: Its rows.
        row_group: Rows of a row group, of Parquet.
        has_numbers: Whether ids are numbers; the type of a Parquet column, rows or none.
        is_damaged: Whether it breaks off before its first row.
    """

    ending: str
    rows: tuple[Row, ...]
    row_group: int = 3
    has_numbers: bool = False
    is_damaged: bool = False

    @property
    def format(self) -> str:
        return self.ending.removesuffix(".gz")

    @property
    def has_bad_rows(self) -> bool:
        return self.is_damaged or any(row.kind != "good" for row in self.rows)

    def documents(self, uri: str) -> list[Document]:
        """Return the rows to embed, in order."""
        if self.is_damaged:
            return []
        named = zip(self.ids(uri), self.rows, strict=True)
        tag_of = {"txt": lambda row: None, "csv": lambda row: row.tag or ""}
        tag = tag_of.get(self.format, lambda row: row.tag)
        return [Document(name, row.text, tag(row)) for name, row in named if row.kind == "good"]

    def rejects(self, uri: str) -> list[tuple[str | None, str]]:
        """Return (id as text, part of the reason) of the other rows, in order."""
        if self.is_damaged:
            return [(None, _UNREADABLE)]
        named = zip(self.ids(uri), self.rows, strict=True)
        return [
            (self._told_id(row, name), _REASONS[row.kind])
            for name, row in named
            if row.kind != "good"
        ]

    def ids(self, uri: str) -> list[int | str]:
        """Return the rows' ids; of text files those are their places."""
        if self.format != "txt":
            return [row.id for row in self.rows]
        ends = [0]
        for row in self.rows:
            ends.append(ends[-1] + len(_text_line(row)))
        return [f"{uri}:{offset}" for offset in ends[:-1]]

    def _told_id(self, row: Row, name: int | str) -> str | None:
        if row.kind == "no id":
            return "" if self.format == "csv" else None
        is_line_unread = row.kind == "no text" and self.format == "jsonl"
        return None if is_line_unread or row.kind in ("broken", "short") else str(name)

    def to_bytes(self) -> bytes:
        """Return the file."""
        plain = {
            "jsonl": lambda: b"".join(map(_json_line, self.rows)),
            "csv": lambda: b"id,text,tag\n" + b"".join(map(_csv_line, self.rows)),
            "txt": lambda: b"".join(map(_text_line, self.rows)),
            "parquet": self._parquet,
        }[self.format]()
        whole = gzip.compress(plain, mtime=0) if self.ending.endswith(".gz") else plain
        return whole[:_CUT_AT] if self.is_damaged else whole

    def _parquet(self) -> bytes:
        ids = [None if row.kind == "no id" else row.id for row in self.rows]
        texts = pa.array([_parquet_text(row) for row in self.rows], pa.binary()).view(pa.string())
        table = pa.table(
            {
                "id": pa.array(ids, pa.int64() if self.has_numbers else pa.string()),
                "text": texts,
                "tag": pa.array([row.tag for row in self.rows], pa.string()),
            }
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=self.row_group)
        return sink.getvalue()


def _shown_text(row: Row) -> str:
    return {"empty": "", "blank": " \t "}.get(row.kind, row.text)


def _json_line(row: Row) -> bytes:
    values: dict[str, object] = {"id": row.id, "text": _shown_text(row), "tag": row.tag}
    if row.kind == "null":
        values["text"] = None
    elif row.kind == "number":
        values["text"] = 7
    elif row.kind == "no id":
        values["id"] = None
    line = json.dumps(values).encode()
    if row.kind == "broken":
        line = line[:-1]
    return (line + _NOT_UTF8 if row.kind == "no text" else line) + b"\n"


def _csv_line(row: Row) -> bytes:
    sink = io.StringIO()
    fields = ["" if row.kind == "no id" else row.id, _shown_text(row), row.tag or ""]
    csv.writer(sink, lineterminator="\n").writerow(fields[:1] if row.kind == "short" else fields)
    line = sink.getvalue().encode()
    return line[:-1] + _NOT_UTF8 + b"\n" if row.kind == "no text" else line


def _text_line(row: Row) -> bytes:
    line = _shown_text(row).encode()
    return (line + _NOT_UTF8 if row.kind == "no text" else line) + b"\n"


def _parquet_text(row: Row) -> bytes | None:
    if row.kind == "null":
        return None
    text = _shown_text(row).encode()
    return text + _NOT_UTF8 if row.kind == "no text" else text


@dataclass
class Lake:
    """A folder of source files, each with what it held at which version.

    Its clock is its own, so that no two versions are alike and every run of a test has the same.

    Attributes:
        folder: Where the files are.
        present: What is there, by path.
        history: Everything that ever was there: path -> version, as the job names it -> content.
        changes: How often each path has changed; what was kept of an older number is out of date.
    """

    folder: Path
    present: dict[str, Content] = field(default_factory=dict)
    history: dict[str, dict[str, Content]] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    _now_s: int = 1_000_000_000

    def write(self, name: str, content: Content) -> str:
        """Write a file whole, new or over what is there; return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.to_bytes())
        self.touch(str(path), content)
        return str(path)

    def touch(self, path: str, content: Content | None = None) -> None:
        """Give a file another time."""
        self._now_s += 1
        self._take(path, content or self.present[path], self._now_s * 10**9)

    def remove(self, path: str) -> tuple[Content, int]:
        """Delete a file; return what `put_back` needs."""
        time_ns = Path(path).stat().st_mtime_ns
        Path(path).unlink()
        self.changes[path] += 1
        return self.present.pop(path), time_ns

    def put_back(self, path: str, content: Content, time_ns: int) -> None:
        """Put a file back just as it was, under this name or another."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.to_bytes())
        self._take(path, content, time_ns)

    def version(self, path: str) -> str:
        """Return a file's version, as the job names it."""
        status = Path(path).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def _take(self, path: str, content: Content, time_ns: int) -> None:
        os.utime(path, ns=(time_ns, time_ns))
        self.present[path] = content
        self.history.setdefault(path, {})[self.version(path)] = content
        self.changes[path] = self.changes.get(path, 0) + 1
