"""From the raw rows of a work unit to documents to embed, or rejects with their reason.

Every row of a unit comes out of here exactly once. Reads what the formats' readers give, knows
nothing of tokens, shards or Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from pipelines.errors import UnreadableSourceError
from pipelines.source.arrow_values import decoded, scalar_value, to_array, undecodable
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.readers.csv_rows import read_csv
from pipelines.source.readers.files import guarded
from pipelines.source.readers.lines import read_jsonl, read_text
from pipelines.source.readers.parquet import BATCH_BYTES, BATCH_ROWS, read_parquet
from pipelines.source.readers.raw_row import RawRow
from pipelines.source.text_rules import MISSING, Problem, id_problem, id_text, text_of
from pipelines.source.units import Format, RangeKind, Source, WorkUnit

__all__ = ["DocumentBatch", "Reject", "read_documents"]

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""How Hive, Spark and pyarrow write null into a folder's name."""


@dataclass(frozen=True)
class Reject:
    """A row that is not embedded, or the rest of a file.

    Attributes:
        id: The id as text where one could be read; valid UTF-8.
        row: Position in the unit, from 0; None for the whole rest of a file.
        reason: Short and the same for the same cause.
        stage: Where it was found: "read", "validate", "chunk" or "encode".
    """

    id: str | None
    row: int | None
    reason: str
    stage: str


@dataclass(frozen=True)
class DocumentBatch:
    """Consecutive rows of a unit: n documents and the rejects among them.

    Attributes:
        row_start: Position in the unit of the first row that the batch accounts for.
        row_stop: One past the last; the next batch starts there.
        texts: The n texts to embed; valid UTF-8, not only white space.
        rows: Position in the unit of each.
        carried: n rows of the carried columns.
        rejects: The other rows of [row_start, row_stop).
    """

    row_start: int
    row_stop: int
    texts: list[str]
    rows: list[int]
    carried: pa.RecordBatch
    rejects: list[Reject]


def read_documents(
    unit: WorkUnit, columns: CorpusColumns, *, skip_rows: int = 0
) -> Iterator[DocumentBatch]:
    """Yield the rows of a unit in order, in batches of at most 1,024 rows and about 8 MiB of text.

    Args:
        unit: What to read; an UNREADABLE unit is one reject that stands for the whole file.
        columns: Columns and their types.
        skip_rows: Rows of the unit to pass over; Parquet skips whole row groups without reading.

    Raises:
        UnreadableSourceError: The rest of the file cannot be decoded; what stands before was
            yielded.
        SourceChangedError: The file is gone or was replaced since it was planned.
        InvalidInputError: The file lacks a column, or has it in another type.
        OSError: The disk did not give it; nothing is said about the file.
        StorageError: The store did not answer; neither.
    """
    if unit.kind is RangeKind.UNREADABLE:
        nothing = pa.RecordBatch.from_pylist([], schema=columns.carried)
        yield DocumentBatch(0, 0, [], [], nothing, [Reject(None, None, unit.reason, "read")])
    elif unit.source.format is Format.PARQUET:
        yield from _column_wise(unit, columns, skip_rows)
    else:
        yield from _row_wise(unit, columns, skip_rows)


def _column_wise(unit: WorkUnit, columns: CorpusColumns, skip_rows: int) -> Iterator[DocumentBatch]:
    start = skip_rows
    batches = guarded(
        read_parquet(unit, columns, skip_rows),
        unit.label,
        rows_of=lambda batch: int(batch.num_rows),
        first_row=skip_rows,
    )
    for batch in batches:
        for piece in _bounded(batch):
            yield _judged_columns(start, piece, unit.source, columns)
            start += piece.num_rows


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield a batch in pieces of at most `BATCH_BYTES` or one row: sizes of rows vary."""
    if batch.num_rows <= 1 or batch.nbytes <= BATCH_BYTES:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _bounded(batch.slice(0, middle))
    yield from _bounded(batch.slice(middle))


def _judged_columns(
    start: int, batch: pa.RecordBatch, source: Source, columns: CorpusColumns
) -> DocumentBatch:
    parts = zip(*(decoded(batch.column(name)) for name in columns.text_columns), strict=True)
    outcomes = [text_of(row) for row in parts]
    problems = [problem for _, problem in outcomes]
    arrays = []
    for field in columns.carried:
        array = _from_path(source, columns, field.name, batch.num_rows)
        if array is None:
            array = batch.column(field.name)
            for position in undecodable(array):
                reason = f"column {field.name!r} is not valid UTF-8"
                problems[position] = problems[position] or Problem(reason, "read")
        arrays.append(array)
    ids = arrays[0]
    if ids.null_count:
        null = ids.is_null().to_pylist()
        problems = [
            id_problem(None) if null[row] else problem for row, problem in enumerate(problems)
        ]
    return _batch(
        start,
        [text for text, _ in outcomes],
        problems,
        pa.RecordBatch.from_arrays(arrays, schema=columns.carried),
        [
            id_text(scalar_value(ids, row)) if problem else None
            for row, problem in enumerate(problems)
        ],
    )


def _row_wise(unit: WorkUnit, columns: CorpusColumns, skip_rows: int) -> Iterator[DocumentBatch]:
    rows = guarded(
        islice(_raw_rows(unit, columns), skip_rows, None),
        unit.label,
        rows_of=lambda row: 1,
        first_row=skip_rows,
    )
    start, pending, pending_bytes = skip_rows, [], 0
    try:
        for row in rows:
            pending.append(row)
            pending_bytes += row.size_bytes
            if len(pending) == BATCH_ROWS or pending_bytes >= BATCH_BYTES:
                yield _judged_rows(start, pending, unit.source, columns)
                start, pending, pending_bytes = start + len(pending), [], 0
    except UnreadableSourceError:
        # What was read before the file broke is as good as any other row.
        if pending:
            yield _judged_rows(start, pending, unit.source, columns)
        raise
    if pending:
        yield _judged_rows(start, pending, unit.source, columns)


def _raw_rows(unit: WorkUnit, columns: CorpusColumns) -> Iterator[RawRow]:
    source = unit.source
    start, stop = (unit.start, unit.stop) if unit.kind is RangeKind.BYTES else (0, None)
    if source.format is Format.JSONL:
        return read_jsonl(source, start, stop)
    if source.format is Format.TEXT:
        return read_text(source, columns.id_column, columns.text_columns[0], start, stop)
    return read_csv(source, columns.of_file(source.partition))


def _judged_rows(
    start: int, rows: Sequence[RawRow], source: Source, columns: CorpusColumns
) -> DocumentBatch:
    outcomes = [_outcome(row, source, columns) for row in rows]
    problems = [problem for _, problem in outcomes]
    arrays = []
    for field in columns.carried:
        array = _from_path(source, columns, field.name, len(rows))
        if array is None:
            array, misfits = to_array([row.values.get(field.name) for row in rows], field)
            for position, reason in misfits.items():
                problems[position] = problems[position] or Problem(reason)
        arrays.append(array)
    return _batch(
        start,
        [text for text, _ in outcomes],
        problems,
        pa.RecordBatch.from_arrays(arrays, schema=columns.carried),
        [id_text(row.values.get(columns.id_column)) for row in rows],
    )


def _outcome(row: RawRow, source: Source, columns: CorpusColumns) -> tuple[str, Problem | None]:
    """Return the text of a row, or why it is rejected; the types of carried values come later."""
    if row.problem:
        return "", Problem(row.problem, "read")
    row_id = row.values.get(columns.id_column, MISSING)
    # CSV has no null: an empty field is the absence of an id.
    problem = id_problem(None if source.format is Format.CSV and row_id == "" else row_id)
    if problem is not None:
        return "", problem
    return text_of([row.values.get(name, MISSING) for name in columns.text_columns])


def _from_path(source: Source, columns: CorpusColumns, name: str, rows: int) -> pa.Array | None:
    """Return a partition column's value for every row, or None where the file holds the column."""
    values = dict(source.partition)
    if name not in values or name == columns.id_column:
        return None
    value = None if values[name] == _HIVE_NULL else values[name]
    return pa.repeat(pa.scalar(value, pa.string()), rows)


def _batch(
    start: int,
    texts: Sequence[str],
    problems: Sequence[Problem | None],
    carried: pa.RecordBatch,
    ids: Sequence[str | None],
) -> DocumentBatch:
    """Divide n rows into documents and rejects."""
    good = [row for row, problem in enumerate(problems) if problem is None]
    if len(good) < len(problems):
        carried = carried.take(pa.array(good, pa.int64()))
    rejects = [
        Reject(ids[row], start + row, problem.reason, problem.stage)
        for row, problem in enumerate(problems)
        if problem is not None
    ]
    return DocumentBatch(
        row_start=start,
        row_stop=start + len(problems),
        texts=[texts[row] for row in good],
        rows=[start + row for row in good],
        carried=carried,
        rejects=rejects,
    )
