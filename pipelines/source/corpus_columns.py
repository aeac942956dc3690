"""Which columns are read of every row, and when two Arrow types count as the same.

Knows no file: `pipelines.source.column_inference` finds the types, the readers hold files to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from encoder.errors import InvalidInputError

__all__ = ["CorpusColumns", "kind_of", "plain_type", "same_type", "shown_names"]

_SHOWN_NAMES = 20
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class CorpusColumns:
    """The columns that are read of every row.

    Attributes:
        id_column: Column that names a row; for text files the name of the output column.
        text_columns: Columns whose values are joined by a space and embedded.
        carried: Columns that are written beside the vectors: the id, then pass-through columns,
            then hive partition columns (string), with the types of the source.
        said_by: Carried columns of which a source says the type -> its URI. The others are strings.
        without_type: Those of which a source has only values that no type holds -> what to do.
    """

    id_column: str
    text_columns: tuple[str, ...]
    carried: pa.Schema
    # Where types come from does not make other columns.
    said_by: Mapping[str, str] = field(default_factory=dict, compare=False)
    without_type: Mapping[str, str] = field(default_factory=dict, compare=False)

    def of_file(self, partition: tuple[tuple[str, str], ...]) -> list[str]:
        """Return the columns that are looked for inside a file, each once.

        Args:
            partition: The file's hive partition values, which its path gives instead.
        """
        from_path = {name for name, _ in partition} - {self.id_column}
        carried = [name for name in self.carried.names if name not in from_path]
        return list(dict.fromkeys([*carried, *self.text_columns]))

    def require_types(self) -> None:
        """Refuse columns whose type nothing tells, neither their values nor an earlier run.

        Raises:
            InvalidInputError: There is such a column.
        """
        for what_to_do in self.without_type.values():
            raise InvalidInputError(what_to_do)


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


def kind_of(data_type: pa.DataType) -> str:
    """Return what a type is for: values of one kind may fit another type of it, others never do."""
    plain, types = plain_type(data_type), pa.types
    if types.is_integer(plain) or types.is_floating(plain) or types.is_decimal(plain):
        return "number"
    if types.is_list(plain) or types.is_large_list(plain) or types.is_fixed_size_list(plain):
        return "list"
    if types.is_temporal(plain):
        return "time"
    return "object" if types.is_struct(plain) or types.is_map(plain) else str(plain)


def shown_names(names: Sequence[str]) -> str:
    """Return a file's column names for a message, which is not as large as the file wants."""
    shown = [
        repr(name[:_SHOWN_CHARACTERS]) + ("..." if len(name) > _SHOWN_CHARACTERS else "")
        for name in names[:_SHOWN_NAMES]
    ]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more or "no columns"
