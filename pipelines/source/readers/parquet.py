"""Row groups of a Parquet file as record batches of the needed columns, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from encoder.errors import InvalidInputError
from pipelines.errors import SourceChangedError, UnreadableSourceError
from pipelines.source.arrow_values import runs_code
from pipelines.source.corpus_columns import CorpusColumns, plain_type, same_type, shown_names
from pipelines.source.readers.files import open_parquet
from pipelines.source.units import Source, WorkUnit

__all__ = ["BATCH_BYTES", "BATCH_ROWS", "check_text_type", "field_of", "read_parquet"]

BATCH_ROWS = 1024
BATCH_BYTES = 8 * 2**20
_ROWS_AT_ONCE = 64
"""Decoded before their size is known: what is stored once, in a dictionary or as a prefix, may come
out in every row. 1 to 3 us a row more than 1,024 at once, where tokenizing it takes 100."""


def read_parquet(
    unit: WorkUnit, columns: CorpusColumns, skip_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the unit's rows from `skip_rows` on; carried columns are of their pinned types.

    Strings are not checked: Parquet writers may put any bytes into them.

    Raises:
        InvalidInputError: A column is missing or of another type.
        SourceChangedError: The file has fewer row groups than were planned.
        UnreadableSourceError: The row groups hold fewer rows than the footer says.
    """
    with open_parquet(unit.source) as file:
        if unit.stop > file.num_row_groups:
            raise SourceChangedError(f"{unit.label}: file has {file.num_row_groups} row groups now")
        names = columns.of_file(unit.source.partition)
        schema = file.schema_arrow
        for name in columns.text_columns:
            check_text_type(unit.source, field_of(unit.source, schema, name))
        casts = _casts(unit.source, schema, columns, names)
        groups, skip_rows = _skip_groups(file.metadata, range(unit.start, unit.stop), skip_rows)
        expected = sum(file.metadata.row_group(group).num_rows for group in groups)
        found = 0
        pieces = file.iter_batches(
            batch_size=_rows_at_once(file.metadata, groups), row_groups=groups, columns=names
        )
        for batch in _joined(_cast(piece, casts) for piece in pieces):
            found += batch.num_rows
            skipped = min(skip_rows, batch.num_rows)
            skip_rows -= skipped
            if skipped < batch.num_rows:
                yield batch.slice(skipped)
        if found != expected:
            raise UnreadableSourceError(
                f"{unit.label}: footer says {expected} rows, found {found}; replace the file"
            )


def field_of(source: Source, schema: pa.Schema, name: str) -> pa.Field:
    """Return the field of a column that is to be read.

    Raises:
        InvalidInputError: The file has no such column, or two, or its type runs code.
    """
    indices = schema.get_all_field_indices(name)
    if len(indices) != 1:
        found = "it twice" if indices else shown_names(schema.names)
        raise InvalidInputError(f"{source.uri}: expected a column {name!r}, found {found}")
    field = schema.field(indices[0])
    if runs_code(field.type):
        raise InvalidInputError(
            f"{source.uri}: expected plain values in column {name!r}, found {field.type}, which"
            " runs code to read a value: convert the file, or leave the column out"
        )
    return field


def check_text_type(source: Source, field: pa.Field) -> None:
    """Refuse a text column that does not hold strings."""
    if not same_type(field.type, pa.string()):
        raise InvalidInputError(
            f"{source.uri}: expected strings in text column {field.name!r}, found {field.type}:"
            " name another --text-column"
        )


def _casts(
    source: Source, schema: pa.Schema, columns: CorpusColumns, names: Sequence[str]
) -> dict[str, pa.DataType]:
    """Return the type that each column is cast to, after checking that nothing else changes."""
    casts = {name: plain_type(schema.field(name).type) for name in columns.text_columns}
    for expected in columns.carried:
        if expected.name not in names:
            continue
        found = field_of(source, schema, expected.name)
        if not same_type(found.type, expected.type):
            raise InvalidInputError(
                f"{source.uri}: expected {expected.type} in column {expected.name!r} as in the"
                f" corpus, found {found.type}: convert the file, or embed it into another output"
            )
        casts[expected.name] = expected.type
    return casts


def _cast(batch: pa.RecordBatch, casts: dict[str, pa.DataType]) -> pa.RecordBatch:
    """Return the columns in the order of `casts`, each of its type."""
    arrays = [batch.column(name).cast(data_type) for name, data_type in casts.items()]
    return pa.RecordBatch.from_arrays(arrays, names=list(casts))


def _skip_groups(
    metadata: pq.FileMetaData, groups: Sequence[int], skip_rows: int
) -> tuple[list[int], int]:
    """Return the row groups that are left after `skip_rows`, and the rows left to skip in them."""
    left = list(groups)
    while left and skip_rows >= metadata.row_group(left[0]).num_rows:
        skip_rows -= metadata.row_group(left.pop(0)).num_rows
    return left, skip_rows


def _rows_at_once(metadata: pq.FileMetaData, groups: Sequence[int]) -> int:
    """Return the rows of a piece of `BATCH_BYTES` at most, by the mean size of a stored row."""
    found = [metadata.row_group(group) for group in groups]
    size: int = sum(group.total_byte_size for group in found)
    rows: int = sum(group.num_rows for group in found)
    return max(1, min(_ROWS_AT_ONCE, BATCH_BYTES * rows // max(size, 1)))


def _joined(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches of at most `BATCH_ROWS` and `BATCH_BYTES`, or one larger piece."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    try:
        for piece in pieces:
            rows, size = rows + piece.num_rows, size + piece.nbytes
            if held and (rows > BATCH_ROWS or size > BATCH_BYTES):
                yield pa.concat_batches(held)
                held, rows, size = [], piece.num_rows, piece.nbytes
            held.append(piece)
    except (pa.ArrowException, OSError):
        # What was read before the file broke is as good as any other row.
        if held:
            yield pa.concat_batches(held)
        raise
    if held:
        yield pa.concat_batches(held)
