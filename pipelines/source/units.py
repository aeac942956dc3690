"""The nouns of a plan: a source file, the version of it that was seen, a work unit of it.

A work unit is (source URI, version, format, range). Its `key` is a hash of them, so a unit's shards
carry the same names on every run, on every machine; a changed source has other keys.
This module reads nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from pydantic import TypeAdapter

__all__ = ["Format", "RangeKind", "Source", "WorkUnit"]

_KEY_HEX_DIGITS = 32


class Format(StrEnum):
    """How rows are stored in a source file."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


class RangeKind(StrEnum):
    """What `start` and `stop` of a unit count."""

    ROW_GROUPS = "row_groups"
    BYTES = "bytes"
    FILE = "file"
    """The whole file as one stream (CSV, compressed files); start and stop are 0."""
    UNREADABLE = "unreadable"
    """A file that could not be opened when the job was planned, under `--on-invalid reject`."""


@dataclass(frozen=True)
class Source:
    """One input file as it was when the job was planned.

    Attributes:
        uri: Absolute path for a local file, else the full URI (s3://bucket/key).
        version: ETag on an object store, else "size-mtime_ns"; another version is another file.
        size_bytes: Stored size (compressed size for a compressed file).
        format: How rows are stored.
        compression: "gzip", "zstd" or None, from the file's name.
        partition: Hive partition values from the path, as ((name, value), ...).
        root: The input argument under which the file was found.
    """

    uri: str
    version: str
    size_bytes: int
    format: Format
    compression: str | None = None
    partition: tuple[tuple[str, str], ...] = ()
    root: str = ""


@dataclass(frozen=True)
class WorkUnit:
    """A range of one source, embedded from end to end by one call of one actor.

    Attributes:
        source: The file.
        kind: What `start` and `stop` count.
        start: First row group, or first byte.
        stop: One past the last row group, or byte. A line belongs to the unit in which its first
            byte lies.
        rows: Rows in the range where the format says so (Parquet), else None.
        first_row: Position in the source of the range's first row, where known (Parquet, whole
            files), else None.
        size_bytes: Stored bytes of the range, for progress and the order of work.
        reason: Why the file is unreadable (UNREADABLE only).
    """

    source: Source
    kind: RangeKind
    start: int
    stop: int
    rows: int | None
    first_row: int | None
    size_bytes: int
    reason: str = ""

    @property
    def key(self) -> str:
        """32 hex digits that name the unit: sha256 over source URI, version, format and range."""
        source = self.source
        identity = [source.uri, source.version, source.format.value]
        identity += [self.kind.value, str(self.start), str(self.stop)]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:_KEY_HEX_DIGITS]

    @property
    def label(self) -> str:
        """The unit as a user reads it: `uri` or `uri#row_groups=0-4`."""
        if self.kind in (RangeKind.FILE, RangeKind.UNREADABLE):
            return self.source.uri
        return f"{self.source.uri}#{self.kind.value}={self.start}-{self.stop}"

    def to_json(self) -> str:
        """Return the descriptor that travels to an actor."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkUnit:
        """Rebuild a unit from `to_json`."""
        return _UNIT.validate_json(text)


_UNIT = TypeAdapter(WorkUnit)
