"""Types of settings fields that read the same from a flag, a variable and YAML."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from encoder.file_systems import PASSWORD_REFUSED, has_password

__all__ = ["AUTO_IS_UNSET", "CommaSeparated", "Location", "Locations", "OneOrMore"]

_ONE_SLASH = re.compile(r"[A-Za-z][\w+.-]+:/(?!/)")
"""As in `s3:/bucket/docs`, which would be a folder here that is called `s3:`."""


def _one_or_more(value: object) -> object:
    """Accept `input: docs/` in YAML and the environment, where a flag gives a list of one."""
    return (value,) if isinstance(value, str) else value


def _comma_separated(value: object) -> object:
    """Accept "a,b", and the ("a,b", "c") of a flag that was given more than once."""
    parts = _one_or_more(value)
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        return value
    return tuple(name.strip() for part in parts for name in part.split(",") if name.strip())


def _said(value: str) -> str:
    """Refuse what a shell makes of a variable that is not set."""
    if not value.strip():
        raise ValueError("expected a value, found an empty one; is a variable not set?")
    return value


def _place(value: str) -> str:
    """Refuse a URI that would be read as a local path, or that names nothing."""
    if has_password(value):
        raise ValueError(PASSWORD_REFUSED)
    if _ONE_SLASH.match(value):
        raise ValueError(f"expected PROTOCOL://..., found {value!r} with one slash; add the other")
    if value.startswith("~"):
        try:
            Path(value).expanduser()
        except RuntimeError as error:
            raise ValueError(f"expected a path, found no home folder for {value!r}") from error
    if "://" in value and not value.partition("://")[2].strip("/ "):
        raise ValueError(
            f"expected a bucket or folder behind ://, found {value!r}; is a variable not set?"
        )
    return _said(value)


def _each(check: Callable[[str], str]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    # Of items that are refused one by one pydantic says, too, that there are too few.
    return lambda values: tuple(map(check, values))


Location = Annotated[str, AfterValidator(_place)]
"""A path, or a URI of any protocol; one of an object store names a bucket at least."""
Locations = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), AfterValidator(_each(_place))]
OneOrMore = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), AfterValidator(_each(_said))]
CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_comma_separated)]
AUTO_IS_UNSET = BeforeValidator(lambda value: None if value == "auto" else value)
"""Stands beside an optional field that also takes the word "auto"."""
