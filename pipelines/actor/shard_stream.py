"""A work unit as a stream: its documents under the policy for bad input, cut into shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from encoder.errors import InvalidInputError
from encoder.tokenizer import Tokenized
from pipelines.actor.prepare import PreparedBatch, concatenate
from pipelines.errors import SourceChangedError, UnreadableSourceError
from pipelines.settings import OnInvalid
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.documents import DocumentBatch, Reject, read_documents
from pipelines.source.sources import current_version
from pipelines.source.units import Source, WorkUnit

__all__ = ["bad_row_error", "check_version", "cut_into_shards", "documents_of"]


def check_version(source: Source) -> None:
    """Check that a source still is the version that was planned.

    Raises:
        SourceChangedError: It is another one, or gone.
    """
    try:
        version = current_version(source.uri)[0]
    except FileNotFoundError:
        raise SourceChangedError(f"{source.uri} is gone since the job was planned") from None
    if version != source.version:
        raise SourceChangedError(
            f"{source.uri} changed since the job was planned: expected version {source.version}, "
            f"found {version}"
        )


def documents_of(
    unit: WorkUnit, columns: CorpusColumns, *, skip_rows: int, on_invalid: OnInvalid | None
) -> Iterator[DocumentBatch]:
    """Read a unit under the policy for invalid input.

    Args:
        unit: What to read.
        columns: What to read of every row.
        skip_rows: Rows at the unit's start that are committed already.
        on_invalid: How far invalid input is tolerated.

    Yields:
        Batches that follow each other without a gap.

    Raises:
        SourceChangedError: The file is damaged because it is being replaced.
        UnreadableSourceError: The file cannot be read to its end, and that is not tolerated.
        InvalidInputError: A row is bad and none is tolerated.
    """
    row = skip_rows
    try:
        for batch in read_documents(unit, columns, skip_rows=skip_rows):
            if on_invalid is OnInvalid.FAIL and batch.rejects:
                raise bad_row_error(unit, batch.rejects[0])
            row = batch.row_stop
            yield batch
    except UnreadableSourceError as error:
        check_version(unit.source)
        if on_invalid is not OnInvalid.REJECT:
            raise
        yield DocumentBatch(
            row_start=row,
            row_stop=row,
            texts=[],
            rows=[],
            carried=pa.RecordBatch.from_pylist([], columns.carried),
            rejects=[Reject(id=None, row=None, reason=str(error), stage="read")],
        )


def bad_row_error(unit: WorkUnit, bad: Reject) -> InvalidInputError:
    """Return the error of a bad row where none is tolerated (`--on-invalid fail`)."""
    return InvalidInputError(
        f"{unit.label} row {bad.row} (id {bad.id!r}): {bad.reason}; correct it, or leave "
        "--on-invalid unset to reject such rows"
    )


def cut_into_shards(
    batches: Iterable[PreparedBatch], *, rows_per_shard: int, row_start: int, carried: pa.Schema
) -> Iterator[tuple[PreparedBatch, bool]]:
    """Cut a unit's rows into shards of at most `rows_per_shard` output rows.

    The cuts depend on the source alone: a rejected row counts one, a document in n chunks n. A
    document with more chunks than `rows_per_shard` is a shard of its own: it is never divided.

    Args:
        batches: Batches that follow each other without a gap.
        rows_per_shard: Output rows of a shard.
        row_start: Source row at which the first batch begins.
        carried: Schema of the carried columns, for a unit without rows.

    Yields:
        (shard, whether it is the unit's last). There is at least one.
    """
    parts: list[PreparedBatch] = []
    room = rows_per_shard
    for batch in batches:
        row_start = batch.row_stop
        ends = np.cumsum(batch.weights)
        start = batch.row_start
        while start < batch.row_stop:
            before = int(ends[start - batch.row_start - 1]) if start > batch.row_start else 0
            fit = int(np.searchsorted(ends, before + room, side="right"))
            stop = batch.row_start + fit
            if stop <= start and parts:
                yield concatenate(parts), False
                parts, room = [], rows_per_shard
                continue
            stop = max(stop, start + 1)
            parts.append(batch.cut(start, stop))
            room -= int(ends[stop - batch.row_start - 1]) - before
            start = stop
        if batch.row_start == batch.row_stop and batch.rejects:
            parts.append(batch)  # the rest of a damaged file; an empty row group is no part
    yield concatenate(parts or [_nothing(row_start, carried)]), True


def _nothing(row: int, carried: pa.Schema) -> PreparedBatch:
    return PreparedBatch(
        row_start=row,
        row_stop=row,
        rows=np.zeros(0, np.int64),
        chunk_index=np.zeros(0, np.int32),
        char_start=np.zeros(0, np.int64),
        char_end=np.zeros(0, np.int64),
        hashes=[],
        tokenized=Tokenized([], np.zeros(0, np.int32), np.zeros(0, bool)),
        carried=pa.RecordBatch.from_pylist([], carried),
        rejects=[],
    )
