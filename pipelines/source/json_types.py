"""The Arrow type of a column of JSON values, by the values: knows no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa

from pipelines.source.arrow_values import to_array

__all__ = ["WITHOUT_TYPE", "json_field"]

WITHOUT_TYPE = b"without_type"
_SHOWN_CHARACTERS = 40
_KINDS = {str: "string", bool: "bool", int: "number", float: "number", list: "list", dict: "object"}
"""What json.loads makes; int64 and double are one kind, so a column of both is double."""
_TOO_DEEP = "too deep"
_MOST_LEVELS = 32
"""Lists and objects in each other; from 300 on Python's recursion ends where types are compared."""


def json_field(name: str, values: Sequence[object]) -> pa.Field:
    """Return a JSON column's type; of values of several kinds the most frequent decides.

    Args:
        name: The column.
        values: n values as the JSON parser gave them; None where a row has none.

    Returns:
        The column's field: null where the values say nothing; with the reason in its metadata, as
        `WITHOUT_TYPE`, where no type holds most of them.
    """
    present = [value for value in values if value is not None]
    if not present:
        return pa.field(name, pa.null())
    kinds = [_kind(value) for value in present]
    kind = Counter(kinds).most_common(1)[0][0]
    alike = [value for value, its_kind in zip(present, kinds, strict=True) if its_kind == kind]
    choices = [] if kind == _TOO_DEEP else _choices(alike)
    misfits = [len(to_array(alike, pa.field(name, choice))[1]) for choice in choices]
    if min(misfits, default=len(alike)) < len(alike):
        return pa.field(name, choices[misfits.index(min(misfits))])
    if 2 * len(alike) < len(values):
        return pa.field(name, pa.null())
    shown = ascii(alike[0])[:_SHOWN_CHARACTERS]
    reason = (
        f"expected values of one type in column {name!r}, found {shown} and {len(alike) - 1} more, "
        "for which there is none (an object without fields, a number beyond 64 bits, more than "
        f"{_MOST_LEVELS} lists or objects in each other): leave the column out, or make them "
        "strings"
    )
    return pa.field(name, pa.null(), metadata={WITHOUT_TYPE: reason.encode()})


def _kind(value: object) -> str:
    level, levels = [value], 0
    while level := [item for outer in level for item in _items(outer)]:
        levels += 1
        if levels > _MOST_LEVELS:
            return _TOO_DEEP
    return _KINDS[type(value)]


def _items(value: object) -> Iterable[object]:
    """Return what stands in a list or an object."""
    if isinstance(value, list):
        return value
    return value.values() if isinstance(value, dict) else ()


def _choices(alike: Sequence[object]) -> list[pa.DataType]:
    """Return the types among which the one is that holds most of the values."""
    try:
        inferred = _without_nulls(pa.infer_type(alike))
    except (pa.ArrowException, OverflowError):
        inferred = _without_nulls(pa.infer_type(alike[:1]))
    # Arrow infers int64 of hashes of 64 bits, too, half of which are larger.
    return [inferred, pa.uint64()] if pa.types.is_integer(inferred) else [inferred]


def _without_nulls(data_type: pa.DataType) -> pa.DataType:
    """Return the type with string where nothing was seen but null, [] or {}."""
    if pa.types.is_null(data_type):
        return pa.string()
    if pa.types.is_list(data_type):
        return pa.list_(_without_nulls(data_type.value_type))
    if pa.types.is_struct(data_type):
        fields = [(field.name, _without_nulls(field.type)) for field in data_type]
        return pa.struct(fields) if fields else pa.string()
    return data_type
