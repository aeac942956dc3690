"""Every text of a corpus' sources, read again and held against what the shards say was embedded.

Both sides stream in the order of the source: row by row either the next stored document has this
id and these texts' hashes, or the rejects file has this row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from encoder.space import Role
from pipelines.actor.prepare import text_hash
from pipelines.actor.shard_stream import documents_of
from pipelines.columns import CHAR_END, CHAR_START, CHUNK_INDEX, TEXT_HASH
from pipelines.corpus.index import IndexedShard
from pipelines.corpus.pin import Pin
from pipelines.corpus.shard_file import ShardFile
from pipelines.corpus.shards import DATA, REJECTS
from pipelines.settings import OnInvalid, OnLong
from pipelines.source.documents import DocumentBatch
from pipelines.source.units import Format, Source, WorkUnit
from pipelines.storage import Storage
from pipelines.verification.current_sources import (
    READ_ERRORS,
    plan_current_sources,
    reason_of,
    units_of,
)

__all__ = ["check_sources"]

_THREADS = 4
_BATCH_ROWS = 4096
_STAGES_OF_DOCUMENTS = ("chunk", "encode")
"""Where a row can be rejected that reads as a document."""

_Span = tuple[int, int, bytes]
"""(char_start, char_end, text_hash) of a chunk."""


def check_sources(
    storage: Storage,
    pin: Pin,
    shards: Sequence[IndexedShard],
    *,
    units: Collection[str],
    input_format: Format | None,
) -> list[str]:
    """Read the sources again; return what differs, a line each that names the shard.

    Args:
        storage: The output folder.
        pin: Its space and layout.
        shards: Readable shards.
        units: Keys of all units that have shards, readable or not.
        input_format: Of the sources, where their names do not tell.
    """
    by_unit: dict[str, list[IndexedShard]] = defaultdict(list)
    for shard in sorted(shards, key=lambda shard: shard.name):
        by_unit[shard.name.unit].append(shard)
    current = plan_current_sources(shards, pin, input_format, storage.below(DATA))
    problems = list(current.problems)
    problems += [
        f"{unit.label} has no shards; run `twofold embed`"
        for key, unit in current.units.items()
        if key not in units
    ]
    problems += [
        f"{source.uri} has no shards: it came after the last run, or failed in it; run "
        "`twofold embed`"
        for source in current.others
        if not _has_units(source, pin, units)
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        todo = [(unit, by_unit[key]) for key, unit in current.units.items() if key in by_unit]
        for found in pool.map(lambda one: _unit_problems(storage, pin, *one), todo):
            problems += found
    return problems


def _has_units(source: Source, pin: Pin, units: Collection[str]) -> bool:
    """Whether shards are there of a source, though none that can be read."""
    try:
        return any(unit.key in units for unit in units_of(source, pin))
    except READ_ERRORS:
        return False


def _unit_problems(
    storage: Storage, pin: Pin, unit: WorkUnit, shards: Sequence[IndexedShard]
) -> list[str]:
    problems: list[str] = []
    waiting = [_Comparison(storage, pin, unit, shard) for shard in shards]
    rows = 0
    try:
        for batch in documents_of(unit, pin.columns, skip_rows=0, on_invalid=OnInvalid.REJECT):
            while waiting and waiting[0].row_stop <= batch.row_start:
                problems += waiting.pop(0).finish()
            for comparison in waiting:
                if comparison.row_start >= batch.row_stop:
                    break
                comparison.add(batch)
            rows = batch.row_stop
        problems += [problem for comparison in waiting for problem in comparison.finish()]
    except READ_ERRORS as error:
        return [*problems, f"{shards[0].name}: {unit.label}: {reason_of(error)}"]
    end = shards[-1]
    if end.name.last and end.footer.row_stop != rows:
        problems.append(
            f"{end.name}: ends at row {end.footer.row_stop} of {unit.label}, which has {rows} rows"
        )
    return problems


@dataclass(frozen=True)
class _Document:
    """What a shard holds of one document."""

    row: int
    """Of its first chunk, in the shard."""
    id: Any
    spans: list[_Span]


class _Comparison:
    """A shard against the source rows that it accounts for; stops at the first difference."""

    def __init__(self, storage: Storage, pin: Pin, unit: WorkUnit, shard: IndexedShard) -> None:
        self.row_start, self.row_stop = shard.footer.row_start, shard.footer.row_stop
        self._storage = storage
        self._pin = pin
        self._prompt = pin.space.role(Role(pin.layout.role)).prompt
        self._name = shard.name
        self._documents = _documents(storage, pin, shard)
        self._has_rejects = shard.footer.rejected > 0
        self._first_row = unit.first_row or 0
        self._rejected: dict[int, str] | None = None
        self._problem: str | None = None

    def add(self, batch: DocumentBatch) -> None:
        """Compare the rows of a batch that are this shard's."""
        for identity, row, text in zip(
            batch.carried.column(0).to_pylist(), batch.rows, batch.texts, strict=True
        ):
            if self._is_mine(row):
                self._problem = self._document_problem(row, identity, text)
        for reject in batch.rejects:
            if reject.row is not None and self._is_mine(reject.row):
                if reject.row not in self._rejects():
                    self._problem = f"source row {reject.row} is no document ({reject.reason})"
                self._rejects().pop(reject.row, None)

    def finish(self) -> Iterator[str]:
        """Yield what is wrong with the shard."""
        left = None if self._problem else next(self._documents, None)
        if left is not None:
            self._problem = f"row {left.row} (id {left.id!r}) is not in the source"
        elif not self._problem and self._rejects():
            self._problem = f"source row {min(self._rejects())} was rejected and is not there"
        if self._problem:
            yield f"{self._name}: {self._problem}"

    def _is_mine(self, row: int) -> bool:
        return self._problem is None and self.row_start <= row < self.row_stop

    def _document_problem(self, row: int, identity: Any, text: str) -> str | None:  # noqa: ANN401
        stage = self._rejects().pop(row, None)
        if stage is not None:
            if stage in _STAGES_OF_DOCUMENTS:
                return None
            return f"source row {row} (id {identity!r}) is a document and was rejected ({stage})"
        stored = next(self._documents, None)
        if stored is None or stored.id != identity:
            found = "the shard's end" if stored is None else f"{stored.id!r} in row {stored.row}"
            return f"source row {row} has id {identity!r}, found {found}"
        if not self._are_of(stored.spans, text):
            return f"row {stored.row} (id {identity!r}): its text is not the one in the source"
        return None

    def _are_of(self, spans: Sequence[_Span], text: str) -> bool:
        whole = len(text) if self._pin.layout.on_long != OnLong.CHUNK else len(text.rstrip())
        return spans[-1][1] >= whole and all(
            text_hash(self._prompt + text[start:end]) == digest for start, end, digest in spans
        )

    def _rejects(self) -> dict[int, str]:
        """Rows of the unit in the rejects file and their stage; read when it is first needed."""
        if self._rejected is None:
            self._rejected = {}
            if self._has_rejects:
                with ShardFile(self._storage, self._name, folder=REJECTS) as file:
                    for batch in file.batches(["row", "stage"], batch_rows=_BATCH_ROWS):
                        rows, stages = (column.to_pylist() for column in batch.columns)
                        for row, stage in zip(rows, stages, strict=True):
                            if row is not None:
                                self._rejected[row - self._first_row] = stage
        return self._rejected


def _documents(storage: Storage, pin: Pin, shard: IndexedShard) -> Iterator[_Document]:
    """Yield the documents of a shard, each with its chunks."""
    columns = [pin.layout.id_column, CHUNK_INDEX, CHAR_START, CHAR_END, TEXT_HASH]
    document: _Document | None = None
    row = 0
    with ShardFile(storage, shard.name) as file:
        for batch in file.batches(columns, batch_rows=_BATCH_ROWS):
            values = (batch.column(name).to_pylist() for name in columns)
            for identity, chunk, start, end, digest in zip(*values, strict=True):
                if chunk == 0 or document is None:
                    if document is not None:
                        yield document
                    document = _Document(row, identity, [])
                document.spans.append((start, end, digest))
                row += 1
    if document is not None:
        yield document
