"""Which columns of a BEIR file are its id, its title and its text.

A title is left out only where no file has any: a figure without titles is another figure, and
nothing else would show it.
"""

from __future__ import annotations

from encoder.errors import InvalidInputError
from pipelines.source.column_inference import infer_columns
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.readers.csv_rows import read_csv_header
from pipelines.source.readers.files import guarded, open_parquet
from pipelines.source.readers.lines import read_jsonl
from pipelines.source.units import Format, Source

__all__ = ["find_columns"]

_ID_COLUMNS = ("_id", "id")
_TITLE, _TEXT = "title", "text"


def find_columns(sources: tuple[Source, ...], *, with_title: bool) -> CorpusColumns:
    """Find the id column by its two usual names, and the title where there is one.

    Args:
        sources: Files of the corpus or of the queries.
        with_title: Whether titles are embedded, too.

    Raises:
        InvalidInputError: There is no id or no text; some files or rows have a title that the
            corpus job would not read, because the first ones have none, or none that is a string.
        UnreadableSourceError: A file cannot be read to its end.
        OSError: The store did not answer.
    """
    refusals = []
    for id_column in _ID_COLUMNS:
        try:
            plain = _infer(sources, id_column, _TEXT)
        except InvalidInputError as error:
            refusals.append(error)
        else:
            return _titled(sources, plain) if with_title else plain
    # The plainer question of the two: a BEIR file has `_id`.
    raise refusals[0]


def _infer(sources: tuple[Source, ...], id_column: str, *text_columns: str) -> CorpusColumns:
    return infer_columns(sources, id_column=id_column, text_columns=text_columns, pass_through=())


def _titled(sources: tuple[Source, ...], plain: CorpusColumns) -> CorpusColumns:
    """Return the columns with the title; as they are where there is none anywhere."""
    try:
        return _infer(sources, plain.id_column, _TITLE, _TEXT)
    except InvalidInputError as error:
        # The job asks the first file and its first rows; whether that is all is asked here.
        places = (place for source in sources if (place := _title_in(source)))
        place = next(places, None)
        if place is None:
            return plain
        raise InvalidInputError(
            f"{place} has a title that would not be embedded: {error}; give every document a "
            f"{_TITLE!r} that is a string, empty where it has none"
        ) from error


def _title_in(source: Source) -> str | None:
    """Return where a file has its first title, or None."""
    if source.format is Format.JSONL:
        rows = enumerate(guarded(read_jsonl(source), source.uri, rows_of=lambda row: 1), 1)
        titled = (number for number, row in rows if row.values.get(_TITLE) not in (None, ""))
        return next((f"{source.uri}, row {number}" for number in titled), None)
    return source.uri if _TITLE in _names(source) else None


def _names(source: Source) -> list[str]:
    if source.format is Format.PARQUET:
        with open_parquet(source) as file:
            return list(file.schema_arrow.names)
    return (read_csv_header(source) or []) if source.format is Format.CSV else []
