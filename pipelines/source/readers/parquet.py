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
from pipelines.source.readers.row_groups import stored_bytes
from pipelines.source.units import Source, WorkUnit

__all__ = ["BATCH_BYTES", "BATCH_ROWS", "check_text_type", "field_of", "read_parquet"]

BATCH_ROWS = 1024
BATCH_BYTES = 8 * 2**20
_ROWS_AT_ONCE = 64
"""Decoded before their size is known: what is stored once, in a dictionary or as a prefix, may come
out in every row. 1 to 3 us a row more for a text and an id than 1,024 at once, where tokenizing it
takes 100."""


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
        pieces = _pieces(unit.source, file, groups, names)
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


def _pieces(
    source: Source, file: pq.ParquetFile, groups: Sequence[int], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the columns, `_ROWS_AT_ONCE` rows at most at a time."""
    schema = file.schema_arrow
    kept = [name for name in names if pa.types.is_dictionary(schema.field(name).type)]
    others = [name for name in names if name not in kept]
    readers = []
    if kept:
        readers.append(_dictionaries(source, file.metadata, groups, kept))
    if others:
        readers.append(_batches(file, groups, others, _ROWS_AT_ONCE))
    return _side_by_side(readers) if kept else readers[0]


def _dictionaries(
    source: Source, metadata: pq.FileMetaData, groups: Sequence[int], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield columns of dictionary types, which stay as stored: each value once.

    Arrow copies all of a dictionary that it has read so far into each batch, so batches are large;
    and an open file has one batch size, so it is opened once more.
    """
    with open_parquet(source) as file:
        if not file.metadata.equals(metadata):
            raise SourceChangedError(f"{source.uri}: replaced while it was read")
        yield from _batches(file, groups, names, BATCH_ROWS)


def _batches(
    file: pq.ParquetFile, groups: Sequence[int], names: Sequence[str], most_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield batches of `most_rows`, or of `BATCH_BYTES` by the mean size of a stored row."""
    rows: int = sum(file.metadata.row_group(group).num_rows for group in groups)
    fitting = BATCH_BYTES * rows // max(stored_bytes(file, groups, names), 1)
    yield from file.iter_batches(max(1, min(most_rows, fitting)), row_groups=groups, columns=names)


def _side_by_side(readers: Sequence[Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Yield the columns of all readers, until one of them ends."""
    held: list[pa.RecordBatch] = [next(reader, None) for reader in readers]
    while all(batch is not None for batch in held):
        rows = min(_ROWS_AT_ONCE, *(batch.num_rows for batch in held))
        yield pa.RecordBatch.from_arrays(
            [column.slice(0, rows) for batch in held for column in batch.columns],
            names=[name for batch in held for name in batch.schema.names],
        )
        held = [
            batch.slice(rows) if rows < batch.num_rows else next(reader, None)
            for batch, reader in zip(held, readers, strict=True)
        ]


def _cast(batch: pa.RecordBatch, casts: dict[str, pa.DataType]) -> pa.RecordBatch:
    """Return the columns in the order of `casts`, each of its type."""
    arrays = [_plain(batch.column(name)).cast(data_type) for name, data_type in casts.items()]
    return pa.RecordBatch.from_arrays(arrays, names=list(casts))


def _plain(array: pa.Array) -> pa.Array:
    """Return what a dictionary array says; Arrow's cast would first cast all of the dictionary."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def _skip_groups(
    metadata: pq.FileMetaData, groups: Sequence[int], skip_rows: int
) -> tuple[list[int], int]:
    """Return the row groups that are left after `skip_rows`, and the rows left to skip in them."""
    left = list(groups)
    while left and skip_rows >= metadata.row_group(left[0]).num_rows:
        skip_rows -= metadata.row_group(left.pop(0)).num_rows
    return left, skip_rows


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
