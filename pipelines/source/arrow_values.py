"""Between Python values and Arrow arrays, strictly: nothing is converted, nothing is trusted.

`pyarrow.array` alone is too kind: it writes 1.5 into an int64 column as 1, true into a double
column as 1.0, and drops the keys of an object that a struct does not have. And strings that come
from Parquet may hold any bytes, its columns be of types that run code.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pipelines.source.corpus_columns import plain_type

__all__ = ["decoded", "fits", "runs_code", "scalar_value", "to_array", "undecodable"]

_SHOWN_CHARACTERS = 40


def fits(value: object, data_type: pa.DataType) -> bool:
    """Return whether a JSON value is of an Arrow type as it stands; null is of every type."""
    if value is None:
        return True
    types = pa.types
    if isinstance(value, str):
        return bool(types.is_string(data_type) or types.is_large_string(data_type))
    if isinstance(value, bool):
        return bool(types.is_boolean(data_type))
    if isinstance(value, int):
        return bool(types.is_integer(data_type) or types.is_floating(data_type))
    if isinstance(value, float):
        return bool(types.is_floating(data_type))
    return _nested_fits(value, data_type)


def _nested_fits(value: object, data_type: pa.DataType) -> bool:
    if isinstance(value, list):
        is_list = pa.types.is_list(data_type) or pa.types.is_large_list(data_type)
        return is_list and all(fits(item, data_type.value_type) for item in value)
    if isinstance(value, dict) and pa.types.is_struct(data_type):
        fields = {field.name: field.type for field in data_type}
        return all(name in fields and fits(item, fields[name]) for name, item in value.items())
    return False


def runs_code(data_type: pa.DataType) -> bool:
    """Return whether code registered with Arrow makes values of a type, or of one inside it.

    A file names the type, whatever is imported registers the code: to look at a value of Ray
    Data's `ray.data.arrow_pickled_object` is to unpickle it. Arrow's own extension types (UUID,
    JSON, tensors) are not meant.
    """
    found = [data_type]
    while found:
        one = found.pop()
        if isinstance(one, pa.ExtensionType):
            return True
        if isinstance(one, pa.BaseExtensionType):
            found.append(one.storage_type)
        elif pa.types.is_dictionary(one):
            found.append(one.value_type)
        else:
            found += (one.field(number).type for number in range(one.num_fields))
    return False


def to_array(values: Sequence[object], field: pa.Field) -> tuple[pa.Array, dict[int, str]]:
    """Return the values as an array, null where they do not fit, and why they do not.

    Args:
        values: n values as the JSON or CSV parser gave them.
        field: Name and type of the column.

    Returns:
        The array of n rows, and {position: reason} of the values that do not fit.
    """
    problems = {
        position: _misfit(value, field)
        for position, value in enumerate(values)
        if not fits(value, field.type)
    }
    kept = [None if position in problems else value for position, value in enumerate(values)]
    if _is_convertible(kept, field.type):
        return pa.array(kept, field.type), problems
    # Integers too large for the type, integers that a double cannot hold, lone surrogates.
    for position, value in enumerate(kept):
        if not _is_convertible([value], field.type):
            problems[position] = _misfit(value, field)
            kept[position] = None
    return pa.array(kept, field.type), problems


def _is_convertible(values: list[object], data_type: pa.DataType) -> bool:
    try:
        pa.array(values, data_type)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False
    return True


def _misfit(value: object, field: pa.Field) -> str:
    if isinstance(value, str) and fits(value, field.type):
        return f"column {field.name!r} has a lone surrogate"
    shown = ascii(value)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}..."
    return f"column {field.name!r}: expected {field.type}, found {type(value).__name__} {shown}"


def decoded(strings: pa.Array) -> list[str | bytes | None]:
    """Return the values of a string array, as bytes where they are not UTF-8."""
    try:
        return list(strings.to_pylist())
    except UnicodeDecodeError:
        return [_decoded(value) for value in strings.cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def undecodable(array: pa.Array) -> list[int]:
    """Return the rows of an array of any type that hold a string that is not UTF-8."""
    if _is_valid(array):
        return []
    # Taken, not sliced: validation of a slice of nested values sees its neighbours' too.
    return [row for row in range(len(array)) if not _is_valid(array.take(pa.array([row])))]


def _is_valid(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def scalar_value(array: pa.Array, row: int) -> str | bytes | None:
    """Return one value of a flat array as text, or as bytes where it is not UTF-8."""
    one = array.slice(row, 1)
    if plain_type(array.type) in (pa.string(), pa.binary()):
        value: str | bytes | None = _decoded(one.cast(pa.large_binary())[0].as_py())
        return value
    if isinstance(array.type, pa.BaseExtensionType):
        # Arrow casts what it is stored as: of a UUID 16 bytes, which are no text.
        found = one[0].as_py()
        return None if found is None else str(found)
    # Arrow's cast knows nanoseconds and decimals, for which as_py() needs pandas or loses digits.
    text: str | None = one.cast(pa.string())[0].as_py()
    return text
