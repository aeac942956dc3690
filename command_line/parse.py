"""Flags, environment and a YAML file fill one frozen settings model.

Everything follows from the model's fields, so a command declares its settings once:

- `rows_per_shard` is the flag `--rows-per-shard`, the variable `TWOFOLD_ROWS_PER_SHARD` and the
  YAML key `rows_per_shard` (or `rows-per-shard`);
- a field whose type is itself a model (`encoder: EncoderSettings`) is a group: its fields are flags
  of their own (`--model`), `TWOFOLD_MODEL` or `TWOFOLD_ENCODER__MODEL`, and in YAML stand flat or
  under `encoder:`;
- a bool is `--prune/--no-prune`, a tuple takes several values and may be repeated, and everything
  else is one value that pydantic parses, whichever of the three it came from.

Flags win over the environment, the environment over YAML, YAML over the defaults.
This module knows no setting by name.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from command_line.fields import AUTO_IS_UNSET
from command_line.sources import (
    ENVIRONMENT_PREFIX,
    from_environment,
    from_yaml,
    groups,
    merge,
    nested,
)
from encoder.errors import InvalidInputError

__all__ = ["parse_settings"]

M = TypeVar("M", bound=BaseModel)


def parse_settings(model: type[M], argv: Sequence[str] | None, *, prog: str, description: str) -> M:
    """Return the settings that flags, environment, `--config FILE.yaml` and defaults add up to.

    Args:
        model: The frozen settings model of the command.
        argv: Arguments after the command's name; None for those of the process.
        prog: Name shown in the usage line, as typed ("twofold embed").
        description: First lines of the help.

    Raises:
        InvalidInputError: A flag, variable or key is unknown, missing or has a wrong value; one
            line for each, naming the flag.
        SystemExit: `--help` was asked for.
    """
    flags = vars(_parser(model, prog, description).parse_args(argv))
    config = flags.pop("config", None)
    in_file = from_yaml(Path(config).expanduser()) if config is not None else {}
    values = nested(model, in_file, where="--config")
    variables = nested(model, from_environment(model), where=f"{ENVIRONMENT_PREFIX}* variables")
    given = nested(model, flags, where="flags")
    merge(model, values, variables)
    merge(model, values, given)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        by_variable = _leaves(variables) - _leaves(given)
        problems = [_problem(model, details, by_variable) for details in error.errors()]
        raise InvalidInputError("\n".join(problems)) from error


def _leaves(values: Mapping[str, Any]) -> set[str]:
    """Return the names of settings, those of groups among them."""
    found: set[str] = set()
    for name, value in values.items():
        found |= _leaves(value) if isinstance(value, Mapping) else {name}
    return found


class _Parser(argparse.ArgumentParser):
    """Reports a wrong flag as every other wrong setting is reported."""

    def error(self, message: str) -> NoReturn:
        unknown, _, words = message.partition(": ")
        if unknown == "unrecognized arguments":
            message = f"{unknown}: {' '.join(_without_values(words.split()))}"
        raise InvalidInputError(f"{message}; see {self.prog} --help")


def _without_values(words: Sequence[str]) -> list[str]:
    """Return unknown flags without what was given to them, which may be a secret."""
    first = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
    flags = [word.partition("=")[0] for word in words[first:] if word.startswith("-")]
    return [*words[:first], *flags]


def _parser(model: type[BaseModel], prog: str, description: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    parser.add_argument(
        "--config",
        metavar="FILE.yaml",
        help="Settings by the names of these flags; flags and TWOFOLD_* variables win over it",
    )
    sections = groups(model)
    # What must be given stands first.
    for name, field in sorted(model.model_fields.items(), key=lambda f: not f[1].is_required()):
        if name not in sections:
            _add_flag(parser, name, field)
    for group, settings in sections.items():
        section = parser.add_argument_group(group)
        for name, field in settings.model_fields.items():
            _add_flag(section, name, field)
    return parser


def _add_flag(parser: argparse._ActionsContainer, name: str, field: FieldInfo) -> None:
    kind = _value_type(field)
    shape: dict[str, Any]
    if kind is bool:
        shape = {"action": argparse.BooleanOptionalAction}
    elif get_origin(kind) is tuple:
        shape = {"nargs": "+", "action": "extend", "metavar": name.upper()}
    else:
        choices = _choices(kind, field)
        shape = {"metavar": "{" + ",".join(choices) + "}" if choices else name.upper()}
    parser.add_argument(_flag(name), dest=name, help=_help(field), **shape)


def _value_type(field: FieldInfo) -> object:
    """The field's type without its None."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    is_optional = NoneType in get_args(field.annotation)
    return kinds[0] if is_optional and len(kinds) == 1 else field.annotation


def _choices(kind: object, field: FieldInfo) -> list[str]:
    """Values to show in the help; pydantic refuses others, from whichever source they come."""
    named: list[str] = []
    if get_origin(kind) is Literal:
        named = [str(value) for value in get_args(kind)]
    elif isinstance(kind, type) and issubclass(kind, Enum):
        named = [str(member.value) for member in kind]
    return ["auto", *named] if AUTO_IS_UNSET in field.metadata else named


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    default = field.default
    if field.is_required():
        text += " (required)"
    elif isinstance(default, tuple) and default:
        text += f" (default: {' '.join(default)})"
    elif default is not None and default != ():
        text += f" (default: {default})"
    return text.replace("%", "%%")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _problem(model: type[BaseModel], details: ErrorDetails, by_variable: Collection[str]) -> str:
    """One line that names the flag, what was expected and what was found.

    Args:
        model: The settings.
        details: What is wrong with them.
        by_variable: Names of settings that the environment gave.
    """
    path = [part for part in details["loc"] if isinstance(part, str)]
    message = details["msg"].removeprefix("Value error, ")
    if not path:
        return message
    names = list(_walk(model, path))
    if details["type"] == "extra_forbidden":
        return (
            f"{'.'.join(path)}: expected a setting's name, found an unknown one in --config or "
            f"a {ENVIRONMENT_PREFIX}* variable; --help lists the names"
        )
    if names[-1] in groups(model):
        if details["type"] == "value_error":
            return message  # of several settings together, which it names
        return f"{names[-1]}: expected settings below it, found {details['input']!r}"
    flag = _flag(names[-1])
    if names[-1] in by_variable:
        flag += f" ({ENVIRONMENT_PREFIX}{names[-1].upper()})"
    if details["type"] == "missing":
        return f"{flag}: expected a value, found none; give it as a flag, a variable or in --config"
    if details["type"] == "value_error":
        return f"{flag}: {message}"
    found = "something else" if _is_secret(model, path) else repr(details["input"])
    return f"{flag}: expected {_expected(message)}, found {found}"


def _expected(message: str) -> str:
    expected = message.removeprefix("Input should be ")
    return f"a value {expected}" if expected.startswith(("greater", "less")) else expected


def _is_secret(model: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether a setting's value must not be shown."""
    field: FieldInfo | None = None
    for name in _walk(model, path):
        field = model.model_fields[name]
        model = groups(model).get(name, model)
    return field is not None and "Secret" in str(field.annotation)


def _walk(model: type[BaseModel], path: Sequence[str]) -> Iterator[str]:
    """Yield the parts of an error's path that are fields, down to the one that has a flag."""
    for part in path:
        if part not in model.model_fields:
            return
        yield part
        if part not in groups(model):
            return
        model = groups(model)[part]
