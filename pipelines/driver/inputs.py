"""What a command's inputs hold under its settings: the files, and the columns of their rows."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.settings import InputSettings
from pipelines.source.column_inference import infer_columns
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.sources import list_sources
from pipelines.source.units import Source
from pipelines.storage import store_errors

__all__ = ["look_at_inputs"]


def look_at_inputs(
    settings: InputSettings, *, pass_through: Sequence[str] = (), written: str | None = None
) -> tuple[list[Source], CorpusColumns]:
    """Return the files that the settings name, and what is read of each of their rows.

    Args:
        settings: Where the files are, and which columns are the id and the text.
        pass_through: Columns to carry along.
        written: Folder whose files are no input; see `list_sources`.

    Raises:
        InvalidInputError: The inputs or their columns are not what the settings say.
        StorageError: The store did not answer.
    """
    with store_errors("read the inputs"):
        sources = list_sources(settings.input, settings.input_format, written)
        columns = infer_columns(
            sources,
            id_column=settings.id_column,
            text_columns=settings.text_column,
            pass_through=pass_through,
        )
    return sources, columns
