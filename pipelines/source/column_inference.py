"""The types of the carried columns: of each the first file's, of each format, that says it.

Parquet says them, JSON lines are inferred from their first rows, CSV and text hold strings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from encoder.errors import InvalidInputError
from pipelines.columns import RESERVED
from pipelines.errors import UnreadableSourceError
from pipelines.source.corpus_columns import CorpusColumns, plain_type, shown_names
from pipelines.source.json_types import WITHOUT_TYPE, json_field
from pipelines.source.readers.csv_rows import read_csv_header
from pipelines.source.readers.files import guarded, open_parquet
from pipelines.source.readers.lines import read_jsonl
from pipelines.source.readers.parquet import check_text_type, field_of
from pipelines.source.readers.raw_row import RawRow
from pipelines.source.units import Format, Source

__all__ = ["infer_columns"]

_LOG = logging.getLogger(__name__)
_SAMPLED_ROWS = 1000
_SAMPLED_BYTES = 16 * 2**20
"""Of lines, from which on no more are read: each may have 64 MiB, of which a zstd file has many."""
_MOST_LOOKS = 32
"""Files of a format that are looked at for a column of which those before hold only null."""


def infer_columns(
    sources: Sequence[Source],
    *,
    id_column: str,
    text_columns: tuple[str, ...],
    pass_through: Sequence[str],
) -> CorpusColumns:
    """Return the columns that are read of every row, with their types.

    The first file of each format decides that is readable and holds rows (for Parquet: that is
    readable). Columns of which it holds nothing but null are looked for in more files; those that
    no file tells are strings, with a warning.

    Args:
        sources: Files of the corpus, all with the same partition columns.
        id_column: Column that names a row.
        text_columns: Columns to embed.
        pass_through: Columns to carry along.

    Raises:
        InvalidInputError: A column is missing, texts are not strings, an id is nested, a partition
            column has a name of the job's own, or two formats differ in a column's type.
        OSError: A disk did not give a file.
        StorageError: A store did not answer.
    """
    partition = [name for name, _ in sources[0].partition if name != id_column] if sources else []
    reserved = sorted(set(partition) & set(RESERVED))
    if reserved:
        raise InvalidInputError(
            f"{sources[0].uri}: partition folders {reserved} have names of the job's own columns:"
            " rename the folders"
        )
    carried = [id_column, *(name for name in pass_through if name not in partition)]
    found = [
        (source, schema)
        for file_format in Format
        for source, schema in _telling(sources, file_format, carried, text_columns)
    ]
    said: dict[str, tuple[Source, pa.DataType]] = {}
    for source, of_source in found:
        for field in of_source:
            if not pa.types.is_null(field.type):
                here = (source, field.type)
                _check_agreement(field.name, said.setdefault(field.name, here), here)
    schema = pa.schema([(n, said[n][1] if n in said else pa.string()) for n in carried])
    _check_id(found[0][0] if found else None, schema.field(id_column))
    for name in partition:
        schema = schema.append(pa.field(name, pa.string()))
    without_type = {
        field.name: f"{source.uri}: {field.metadata[WITHOUT_TYPE].decode()}"
        for source, of_source in found
        for field in of_source
        if field.name not in said and field.metadata
    }
    untold = [name for name in carried if name not in said and name not in without_type]
    if untold and found:
        _LOG.warning(
            "columns %s: expected values that tell their type, found null alone in the files that "
            "were looked at; they are strings, and rows with other values would be rejected. Leave "
            "them out of --columns, or give a file first that has values",
            untold,
        )
    return CorpusColumns(
        id_column=id_column,
        text_columns=text_columns,
        carried=schema,
        said_by={name: source.uri for name, (source, _) in said.items()},
        without_type=without_type,
    )


def _telling(
    sources: Sequence[Source],
    file_format: Format,
    carried: Sequence[str],
    text_columns: Sequence[str],
) -> Iterator[tuple[Source, pa.Schema]]:
    """Yield the files of a format that tell the types, with what each adds to those before it."""
    untold = set(carried)
    looks = 0
    for source in sources:
        if source.format is not file_format:
            continue
        try:
            schema = _SCHEMAS[file_format](source, carried, text_columns)
        except UnreadableSourceError:
            # The plan or the reader tells, and knows whether that is tolerated.
            continue
        except InvalidInputError:
            if not looks:
                raise
            schema = pa.schema([])  # the reader tells
        if schema is None:
            continue
        # A type that the first file says stays, whatever later ones have.
        yield source, pa.schema([field for field in schema if field.name in untold])
        untold -= {f.name for f in schema if f.metadata or not pa.types.is_null(f.type)}
        looks += 1
        if not untold or looks == _MOST_LOOKS:
            return


def _parquet_schema(
    source: Source, carried: Sequence[str], text_columns: Sequence[str]
) -> pa.Schema:
    with open_parquet(source) as file:
        schema = file.schema_arrow
    for name in text_columns:
        check_text_type(source, field_of(source, schema, name))
    return pa.schema(
        [(name, _stored_type(field_of(source, schema, name).type)) for name in carried]
    )


def _stored_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type in which a Parquet column is carried; null where the file holds nothing."""
    types = pa.types
    if types.is_dictionary(data_type):
        return _stored_type(data_type.value_type)
    # Arrow takes no rows out of views.
    is_view = types.is_string_view(data_type) or types.is_binary_view(data_type)
    return plain_type(data_type) if is_view else data_type


def _jsonl_schema(
    source: Source, carried: Sequence[str], text_columns: Sequence[str]
) -> pa.Schema | None:
    names: dict[str, None] = {}
    values: dict[str, list[object]] = {name: [] for name in carried}
    for row in _sample(source):
        names.update(dict.fromkeys(row.values))
        for name, seen in values.items():
            seen.append(row.values.get(name))
    if not values[carried[0]]:
        return None
    _check_names(source, names, [*carried, *text_columns])
    return pa.schema([json_field(name, seen) for name, seen in values.items()])


def _sample(source: Source) -> Iterator[RawRow]:
    """Yield the objects among the first rows of a file, up to where it breaks."""
    rows = guarded(read_jsonl(source), source.uri, rows_of=lambda row: 1)
    size = 0
    try:
        for row in islice(rows, _SAMPLED_ROWS):
            if not row.problem:
                yield row
            size += row.size_bytes
            if size >= _SAMPLED_BYTES:
                return
    except UnreadableSourceError:
        return


def _csv_schema(
    source: Source, carried: Sequence[str], text_columns: Sequence[str]
) -> pa.Schema | None:
    header = read_csv_header(source)
    if header is None:
        return None
    _check_names(source, header, [*carried, *text_columns])
    return pa.schema([(name, pa.string()) for name in carried])


def _text_schema(
    source: Source, carried: Sequence[str], text_columns: Sequence[str]
) -> pa.Schema | None:
    if len(carried) > 1:
        raise InvalidInputError(
            f"{source.uri}: a text file has lines, no column {carried[1]!r}: leave --columns out"
        )
    if carried[0] in text_columns:
        raise InvalidInputError(
            f"{source.uri}: id and text of a line cannot both be called {carried[0]!r}:"
            " give another --id-column"
        )
    return pa.schema([(carried[0], pa.string())])


_SCHEMAS: dict[Format, Callable[[Source, Sequence[str], Sequence[str]], pa.Schema | None]] = {
    Format.PARQUET: _parquet_schema,
    Format.JSONL: _jsonl_schema,
    Format.CSV: _csv_schema,
    Format.TEXT: _text_schema,
}


def _check_names(source: Source, found: Iterable[str], wanted: Sequence[str]) -> None:
    names = list(found)
    for name in wanted:
        if name not in names:
            raise InvalidInputError(
                f"{source.uri}: expected a column {name!r}, found {shown_names(names)}"
            )


def _check_agreement(
    name: str, first: tuple[Source, pa.DataType], other: tuple[Source, pa.DataType]
) -> None:
    """Refuse two formats that give one column two types."""
    if plain_type(first[1]) != plain_type(other[1]):
        raise InvalidInputError(
            f"column {name!r} is {first[1]} in {first[0].uri} and {other[1]} in {other[0].uri}:"
            " convert one, or embed them into two outputs"
        )


def _check_id(source: Source | None, field: pa.Field) -> None:
    if source is not None and pa.types.is_nested(field.type):
        raise InvalidInputError(
            f"{source.uri}: expected numbers or strings in id column {field.name!r}, found"
            f" {field.type}: name another --id-column"
        )
