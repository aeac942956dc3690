"""Types of settings fields that read the same from a flag, a variable and YAML."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

__all__ = ["AUTO_IS_UNSET", "CommaSeparated", "OneOrMore"]


def _one_or_more(value: object) -> object:
    """Accept `input: docs/` in YAML and the environment, where a flag gives a list of one."""
    return (value,) if isinstance(value, str) else value


def _comma_separated(value: object) -> object:
    """Accept "a,b", and the ("a,b", "c") of a flag that was given more than once."""
    parts = _one_or_more(value)
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        return value
    return tuple(name.strip() for part in parts for name in part.split(",") if name.strip())


OneOrMore = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_comma_separated)]
AUTO_IS_UNSET = BeforeValidator(lambda value: None if value == "auto" else value)
"""Stands beside an optional field that also takes the word "auto"."""
