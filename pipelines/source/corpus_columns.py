"""Which columns are read of every row, and when two Arrow types count as the same.

Knows no file: `pipelines.source.column_inference` finds the types, the readers hold files to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

__all__ = ["CorpusColumns", "plain_type", "same_type"]


@dataclass(frozen=True)
class CorpusColumns:
    """The columns that are read of every row.

    Attributes:
        id_column: Column that names a row; for text files the name of the output column.
        text_columns: Columns whose values are joined by a space and embedded.
        carried: Columns that are written beside the vectors: the id, then pass-through columns,
            then hive partition columns (string), with the types of the source.
    """

    id_column: str
    text_columns: tuple[str, ...]
    carried: pa.Schema

    def of_file(self, partition: tuple[tuple[str, str], ...]) -> list[str]:
        """Return the columns that are looked for inside a file, each once.

        Args:
            partition: The file's hive partition values, which its path gives instead.
        """
        from_path = {name for name, _ in partition} - {self.id_column}
        carried = [name for name in self.carried.names if name not in from_path]
        return list(dict.fromkeys([*carried, *self.text_columns]))


def plain_type(data_type: pa.DataType) -> pa.DataType:
    """Return what a type holds, whatever the encoding: dictionary, large and view variants."""
    if pa.types.is_dictionary(data_type):
        return plain_type(data_type.value_type)
    if pa.types.is_large_string(data_type) or pa.types.is_string_view(data_type):
        return pa.string()
    if pa.types.is_large_binary(data_type) or pa.types.is_binary_view(data_type):
        return pa.binary()
    return data_type


def same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Return whether values of one type can be cast to the other without changing any."""
    return bool(pa.types.is_null(found) or plain_type(found) == plain_type(expected))
