"""Where settings come from beside flags: a YAML file and the environment, by the same names.

Each source is a plain mapping; `nested` gives all of them the shape of the model and `merge` lays
one over the other. Values are not judged here: the model does that once, after merging.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError

from encoder.errors import InvalidInputError

__all__ = [
    "ENVIRONMENT_PREFIX",
    "NEARLY",
    "from_environment",
    "from_yaml",
    "groups",
    "merge",
    "nested",
]

ENVIRONMENT_PREFIX = "TWOFOLD_"
_NUMBERS = {
    "tag:yaml.org,2002:int": r"^[-+]?(0|[1-9][0-9]*)$",
    "tag:yaml.org,2002:float": r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?$",
}
"""As YAML 1.2 and JSON write them."""
_MERGE = "tag:yaml.org,2002:merge"
_QUOTED_JSON = re.compile(r"\s*(\[\s*\"|\{)")
NEARLY = 0.92
"""Likeness (difflib's ratio) from which a name is another one that was misspelt."""


def groups(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Fields whose values are settings models of their own (not optional: those are values)."""
    return {
        name: field.annotation
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


class _Loader(yaml.SafeLoader):
    """Reads `2:8` and `010` as they stand, which are 128 and 8 in YAML 1.1; each name once."""

    # The types are PyYAML's. Here, and not where values are made: merges are not done yet.
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        names = [str(key.value) for key, _ in node.value if key.tag != _MERGE]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"expected each name once, found {twice} again", node.start_mark
            )
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list("-+.0123456789"))


def from_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; an empty file holds none.

    Raises:
        InvalidInputError: The file cannot be read, is not YAML or not a mapping of names.
    """
    # pydantic-settings' own YAML source passes over a file that is not there.
    try:
        # A SafeLoader: it makes plain values only.
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InvalidInputError(
            f"--config: expected a readable YAML file, found {str(file)!r}: {error.strerror}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"--config: {file} is not YAML: {_reason(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidInputError(
            f"--config: expected a mapping of setting names to values in {file}, "
            f"found {type(content).__name__}"
        )
    return content


def _reason(error: Exception) -> str:
    """Say what is wrong and where, without the line itself: it may hold a key."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem}, line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


class _Environment(EnvSettingsSource):
    """Reads TWOFOLD_*; a list or a mapping may be JSON, and is plain text otherwise."""

    # The types are pydantic-settings'.
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401
        if not value.lstrip().startswith(("[", "{")):
            return value
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError as error:
            if _QUOTED_JSON.match(value):
                raise InvalidInputError(
                    f"{ENVIRONMENT_PREFIX}{field_name.upper()}: expected text or a JSON list, "
                    "found what begins as JSON and is not"
                ) from error
            return value  # a pattern may begin with a bracket


def from_environment(model: type[BaseModel]) -> dict[str, Any]:
    """Return what TWOFOLD_* variables say, with names the model knows; others are passed over.

    Raises:
        InvalidInputError: A variable begins as JSON and is not, or its name is nearly a setting's.
    """
    values: dict[str, Any] = {}
    variables: set[str] = set()
    for settings in (*groups(model).values(), model):
        fields: dict[str, Any] = {
            name: (field.annotation, field) for name, field in settings.model_fields.items()
        }
        with warnings.catch_warnings():
            # Only the fields' names are read from this model: they may be those of its methods.
            warnings.filterwarnings("ignore", "Field name .* shadows an attribute", UserWarning)
            of_fields = create_model(
                f"{settings.__name__}Variables", __base__=BaseSettings, **fields
            )
        source = _Environment(of_fields, env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__")
        try:
            values.update(
                (name, value) for name, value in source().items() if not _is_service(value)
            )
        except SettingsError as error:
            raise InvalidInputError(f"environment: {error}; expected text or JSON") from error
        variables.update(name.upper() for name in source.env_vars)
    _check_spelling(variables, model)
    return values


def _is_service(value: object) -> bool:
    """Return whether Kubernetes has set a variable: `TWOFOLD_PORT` of a Service named twofold."""
    return isinstance(value, str) and value.startswith(("tcp://", "udp://", "sctp://"))


def _check_spelling(variables: Collection[str], model: type[BaseModel]) -> None:
    """Refuse a variable that is a setting's name but for a letter: it would say nothing.

    Other variables may be another command's, or Kubernetes', which names Services in this way.
    """
    known = {
        name.upper()
        for settings in (*groups(model).values(), model)
        for name in settings.model_fields
    }
    for variable in sorted(variables):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or name in known:
            continue
        if near := get_close_matches(name, known, n=1, cutoff=NEARLY):
            raise InvalidInputError(
                f"{variable}: expected a setting's name, found nearly one; write "
                f"{ENVIRONMENT_PREFIX}{near[0]}, or unset it"
            )


def nested(model: type[BaseModel], values: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Put the fields of groups that stand flat under their group's name.

    Args:
        model: The settings.
        values: What one source says.
        where: The source, for the error.

    Raises:
        InvalidInputError: A setting stands there twice: under its group and by itself, or once
            with `-` and once with `_`.
    """
    owner = {
        name: group for group, settings in groups(model).items() for name in settings.model_fields
    }
    result: dict[str, Any] = {}
    said: set[str] = set()
    given: Mapping[str, Any]
    for key, value in values.items():
        name = key.replace("-", "_")
        if name in groups(model) and value is None:
            continue  # `encoder:` with nothing below it
        if name in owner:
            group, given = owner[name], {name: value}
        elif name in groups(model) and isinstance(value, Mapping):
            group, given = name, value
        else:
            group, given = "", {name: value}
        fields = {key.replace("-", "_"): value for key, value in given.items()}
        twice = sorted(said & fields.keys())
        if twice or len(fields) < len(given):
            named = ", ".join(twice or given)
            raise InvalidInputError(f"{named}: expected once, found it twice in {where}")
        said |= fields.keys()
        merge(model, result, {group: fields} if group else fields)
    return result


def merge(model: type[BaseModel], lower: dict[str, Any], upper: Mapping[str, Any]) -> None:
    """Lay `upper` over `lower`: groups field by field, every other value as a whole."""
    for name, value in upper.items():
        below = lower.get(name)
        if name in groups(model) and isinstance(value, Mapping) and isinstance(below, Mapping):
            lower[name] = {**below, **value}
        else:
            lower[name] = value
