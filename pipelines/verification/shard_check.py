"""Whether one shard is what its name, its footer and its corpus say: every page of it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoder.differences import shown_differences
from encoder.space import EmbeddingSpace
from pipelines.columns import (
    CHAR_END,
    CHAR_START,
    CHUNK_INDEX,
    EMBEDDING,
    N_TOKENS,
    REJECTS_SCHEMA,
    TRUNCATED,
    shard_schema,
)
from pipelines.corpus.index import IndexedShard
from pipelines.corpus.pin import Pin
from pipelines.corpus.shard_file import ShardFile
from pipelines.corpus.shards import REJECTS, ShardFooter, ShardName
from pipelines.errors import CorpusError
from pipelines.source.units import Format, RangeKind, Source, WorkUnit
from pipelines.storage import Storage

__all__ = ["CheckedShard", "check_shard"]

_BATCH_ROWS = 4096
_NORM_TOLERANCE = {"float32": 1e-5, "float16": 2e-3}


@dataclass(frozen=True)
class CheckedShard:
    """What a look at a shard gave.

    Attributes:
        name: The shard.
        size_bytes: Size of its data file.
        footer: What it says of itself; None where that cannot be read.
        is_readable: Whether its rows can be worked with: all were read, in the corpus' columns.
        problems: What is wrong with it, a line each that names it.
    """

    name: ShardName
    size_bytes: int
    footer: ShardFooter | None
    is_readable: bool
    problems: tuple[str, ...]

    @property
    def indexed(self) -> IndexedShard | None:
        """The shard as an index lists it."""
        if self.footer is None:
            return None
        return IndexedShard(self.name, self.size_bytes, self.footer)


def check_shard(
    storage: Storage, pin: Pin, name: ShardName, *, size_bytes: int, has_rejects: bool
) -> CheckedShard:
    """Read a shard and its rejects to their ends, some thousand rows at a time.

    Args:
        storage: The output folder.
        pin: Its space and layout.
        name: The shard.
        size_bytes: Its size in the listing.
        has_rejects: Whether there is a rejects file of this name.
    """
    footer, is_readable = None, False
    problems: list[str] = []
    try:
        with ShardFile(storage, name, verify_checksums=True) as file:
            footer, space = file.said()
            problems += _footer_problems(pin, name, footer, space)
            schema = _expected_schema(pin)
            is_readable = file.schema.equals(schema)
            if not is_readable:
                problems.append(f"columns are {_columns(file.schema)}, expected {_columns(schema)}")
            tally = _Tally(pin)
            tally.read(file.batches(None, batch_rows=_BATCH_ROWS), is_counted=is_readable)
            if is_readable:
                problems += tally.problems(footer)
    except CorpusError as error:
        is_readable = False
        problems.append(str(error))
    if footer is not None:
        problems += _rejects_problems(storage, name, footer, has_rejects=has_rejects)
    lines = tuple(p if str(name) in p else f"{name}: {p}" for p in problems)
    return CheckedShard(name, size_bytes, footer, is_readable, lines)


def _expected_schema(pin: Pin) -> pa.Schema:
    return shard_schema(
        pin.carried,
        dimension=pin.space.dimension,
        embedding_dtype=pin.layout.embedding_dtype,
    )


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _footer_problems(
    pin: Pin, name: ShardName, footer: ShardFooter, space: EmbeddingSpace
) -> Iterator[str]:
    differences = pin.space.differences(space)
    if differences:
        shown = shown_differences(differences, second="shard")
        yield f"is of another embedding space than the corpus: {shown}"
    if (footer.ordinal, footer.last) != (name.ordinal, name.last):
        yield (
            f"its footer says ordinal {footer.ordinal}, last {footer.last}; its name "
            f"{name.ordinal}, {name.last}"
        )
    key = _unit_key(footer)
    if key != name.unit:
        yield (
            f"its footer's source, version, format and range belong to unit {key}, its name to "
            "another"
        )


def _unit_key(footer: ShardFooter) -> str:
    try:
        kind, stored_as = RangeKind(footer.range_kind), Format(footer.format)
    except ValueError as error:
        return f"none ({error})"
    source = Source(footer.source, footer.version, 0, stored_as)
    start, stop = footer.range_start, footer.range_stop
    return WorkUnit(source, kind, start, stop, rows=None, first_row=None, size_bytes=0).key


class _Tally:
    """What the rows of a shard add up to, and the first row of each kind that is wrong."""

    def __init__(self, pin: Pin) -> None:
        self._dimension = pin.space.dimension
        self._tolerance = (
            _NORM_TOLERANCE[pin.layout.embedding_dtype] if pin.space.normalize else None
        )
        self._required = [pin.layout.id_column, *_expected_schema(pin).names[len(pin.carried) :]]
        self._counts = {"rows": 0, "documents": 0, "tokens": 0, "truncated": 0}
        self._wrong: dict[str, list[int]] = {}
        """Kind of problem -> [first row, how many]."""

    def read(self, batches: Iterable[pa.RecordBatch], *, is_counted: bool) -> None:
        """Read batches to their end, which finds damage; count those that have our columns."""
        for batch in batches:
            if is_counted:
                self.add(batch)

    def add(self, batch: pa.RecordBatch) -> None:
        columns = {name: batch.column(name) for name in self._required}
        for name, column in columns.items():
            if column.null_count:
                self._note(column.is_null().to_numpy(zero_copy_only=False), f"{name} is null")
        if not any(column.null_count for column in columns.values()):
            self._add_vectors(columns[EMBEDDING])
            starts, ends = columns[CHAR_START].to_numpy(), columns[CHAR_END].to_numpy()
            self._note((starts < 0) | (ends < starts), "char_start and char_end are no range")
        self._counts["documents"] += pc.sum(pc.equal(columns[CHUNK_INDEX], 0)).as_py() or 0
        self._counts["tokens"] += pc.sum(columns[N_TOKENS]).as_py() or 0
        self._counts["truncated"] += pc.sum(columns[TRUNCATED]).as_py() or 0
        self._counts["rows"] += batch.num_rows

    def problems(self, footer: ShardFooter) -> Iterator[str]:
        said = asdict(footer)
        for name, count in self._counts.items():
            if said[name] != count:
                yield f"its footer says {said[name]} {name}, the file holds {count}"
        for what, (row, count) in self._wrong.items():
            others = f" (and {count - 1} more rows)" if count > 1 else ""
            yield f"row {row}: {what}{others}"

    def _add_vectors(self, column: pa.Array) -> None:
        vectors = column.flatten().to_numpy().reshape(-1, self._dimension)  # (n, D)
        vectors = vectors.astype(np.float32, copy=False)
        finite = np.isfinite(vectors).all(axis=1)  # (n,)
        self._note(~finite, "vector is not finite")
        if self._tolerance is not None:
            norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))  # (n,)
            off = finite & ~(np.abs(norms - 1) <= self._tolerance)
            self._note(off, f"vector is not of length 1 within {self._tolerance:g}")

    def _note(self, wrong: np.ndarray, what: str) -> None:
        rows = np.flatnonzero(wrong)
        if len(rows):
            self._wrong.setdefault(what, [self._counts["rows"] + int(rows[0]), 0])[1] += len(rows)


def _rejects_problems(
    storage: Storage, name: ShardName, footer: ShardFooter, *, has_rejects: bool
) -> Iterator[str]:
    expected = footer.rejected + footer.unreadable
    where = f"{REJECTS}/{name}"
    if not has_rejects:
        if expected:
            yield f"{where} is missing; the shard's footer counts {expected} rejects"
        return
    try:
        with ShardFile(storage, name, folder=REJECTS, verify_checksums=True) as file:
            rows = sum(batch.num_rows for batch in file.batches(None, batch_rows=_BATCH_ROWS))
            if not file.schema.equals(REJECTS_SCHEMA):
                yield f"{where} has the columns {_columns(file.schema)}"
    except CorpusError as error:
        yield str(error)
        return
    if rows != expected:
        yield f"{where} has {rows} rows; the shard's footer counts {expected} rejects"
