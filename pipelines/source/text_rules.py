"""Which values are a text to embed and an id to carry, and the words for those that are not.

The reasons are stable: users count and filter rejects by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["MISSING", "Problem", "has_no_text", "has_surrogate", "id_problem", "id_text", "text_of"]

MISSING = object()
"""Stands for a key that a row does not have."""

_JSON_KINDS = {bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
_ID_CHARACTERS = 1000
_WHITE_SPACE = "text is only white space"
_EMPTY = "text is empty"
_MISSING = "text is missing"
_NULL = "text is null"


class Problem(NamedTuple):
    """Why a row is rejected, and at which stage ("read" or "validate")."""

    reason: str
    stage: str = "validate"


def text_of(parts: Sequence[object]) -> tuple[str, Problem | None]:
    """Return the text that a row's text columns make, or what is wrong with it.

    Args:
        parts: The columns' values; bytes stand for a string that is not UTF-8, MISSING for a key
            that is not there. Several parts are joined by a space, null and empty ones left out.

    Returns:
        (text, None), or ("", problem).
    """
    for part in parts:
        problem = _part_problem(part)
        if problem is not None:
            return "", problem
    text = " ".join(part for part in parts if isinstance(part, str) and part)
    if text and not text.isspace():
        return text, None
    return "", Problem(_why_nothing(text, parts))


def has_no_text(reason: str) -> bool:
    """Return whether a row was rejected because there is nothing to embed."""
    return reason in (_WHITE_SPACE, _EMPTY, _MISSING, _NULL)


def _why_nothing(text: str, parts: Sequence[object]) -> str:
    if text:
        return _WHITE_SPACE
    if any(part == "" for part in parts):
        return _EMPTY
    return _MISSING if all(part is MISSING for part in parts) else _NULL


def _part_problem(part: object) -> Problem | None:
    if isinstance(part, str):
        return Problem("text has a lone surrogate") if has_surrogate(part) else None
    if isinstance(part, bytes):
        return Problem("text is not valid UTF-8", "read")
    if part is None or part is MISSING:
        return None
    return Problem(f"text is not a string (found {_JSON_KINDS.get(type(part), 'another type')})")


def has_surrogate(text: str) -> bool:
    """Return whether a text holds a lone surrogate, so that it is no UTF-8."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def id_problem(value: object) -> Problem | None:
    """Return what is wrong with a row that has this id, apart from its type."""
    if value is MISSING:
        return Problem("id is missing")
    return Problem("id is null") if value is None else None


def id_text(value: object) -> str | None:
    """Return an id as text in valid UTF-8, cut at 1,000 characters; None where there is no id."""
    if value is None or value is MISSING:
        return None
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    return text[:_ID_CHARACTERS].encode(errors="backslashreplace").decode()
