"""Records that outlive who wrote them: read strictly, and a newer twofold's told from damaged ones.

A field that is not known, or a value of another type, is refused: it could be what decides whether
two vectors may be compared. What a newer twofold wrote is no damage, and must be left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from encoder.errors import InvalidInputError, NewerFormatError

__all__ = ["check_format", "parse_file", "parse_record"]

_SHOWN_PROBLEMS = 3
_SHOWN_CHARACTERS = 60

Record = TypeVar("Record")


def check_format(found: object, known: int, where: str) -> None:
    """Check that a record is of the format that is known.

    Args:
        found: What the record says; None where it says nothing.
        known: The newest format that this version of twofold reads.
        where: The record's file.

    Raises:
        NewerFormatError: A newer version of twofold wrote it.
        InvalidInputError: It is of no format that was ever written.
    """
    if type(found) is int and found > known:
        raise NewerFormatError(
            f"{where} was written by a newer version of twofold: expected format {known}, found "
            f"{found}. Leave it as it is, and upgrade this twofold (pip install --upgrade twofold)"
        )
    if type(found) is not int or found != known:
        raise InvalidInputError(
            f"format: expected {known}, found {'none' if found is None else repr(found)}"
        )


def parse_file(
    adapter: TypeAdapter[Record], content: str | bytes, known: int, where: str
) -> Record:
    """Return the record that a file holds; its `format` is looked at before all else.

    Args:
        adapter: What the record is.
        content: The file's JSON.
        known: The newest format that this version of twofold reads.
        where: The file.

    Raises:
        NewerFormatError: A newer version of twofold wrote it.
        InvalidInputError: It holds no such record.
    """
    check_format(parse_record(_FORMATTED, content).format, known, where)
    return parse_record(adapter, content)


def parse_record(adapter: TypeAdapter[Record], content: str | bytes) -> Record:
    """Return a record whose every field is there, known, and of its type.

    Args:
        adapter: What the record is.
        content: Its JSON.

    Raises:
        InvalidInputError: It is not; names the fields with what was expected and found.
    """
    try:
        return adapter.validate_json(content, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)[:_SHOWN_PROBLEMS]
        raise InvalidInputError("; ".join(map(_problem, problems))) from error


@dataclass(frozen=True)
class _Formatted:
    """Of whatever record its format, if it says one."""

    format: Any = None


_FORMATTED = TypeAdapter(_Formatted)


def _problem(details: ErrorDetails) -> str:
    name = "".join(f"{part}: " for part in [".".join(map(str, details["loc"]))] if part)
    found = repr(details["input"])[:_SHOWN_CHARACTERS]
    match details["type"]:
        case "json_invalid":
            return f"expected JSON, found {found} ({details['msg']})"
        case "missing":
            return f"{name}expected a value, found none"
        case "unexpected_keyword_argument":
            return f"{name}expected no such field, found {found}"
    return f"{name}expected {details['msg'].removeprefix('Input should be ')}, found {found}"
