"""A table of commands: finds the one that is named and hands it its arguments.

A command is imported when it is called, so that `--help` waits for neither torch nor Ray. This
module knows no command by name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import NamedTuple, cast

from command_line.boundary import interruptible

__all__ = ["Command", "load_command", "run_one_of"]

_USAGE_ERROR = 2


class Command(NamedTuple):
    """A command: `entry_point` is "module:function"; it takes arguments, returns an exit code."""

    entry_point: str
    summary: str


def run_one_of(commands: Mapping[str, Command], argv: list[str] | None, *, prog: str) -> int:
    """Run the command that the first argument names; return its exit code.

    Args:
        commands: By name.
        argv: The command's name and its arguments; None for those of the process.
        prog: What stands before the name, as typed ("twofold evaluate").
    """
    arguments = sys.argv[1:] if argv is None else argv
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        return interruptible(lambda: _help(commands, prog, 0 if arguments else _USAGE_ERROR))
    if name not in commands:
        sys.stderr.write(
            f"twofold: error: expected one of {', '.join(commands)}, found {name!r}; "
            f"see {prog} --help\n"
        )
        return _USAGE_ERROR
    # Importing a command takes seconds in which it may be interrupted, too.
    return interruptible(lambda: load_command(commands[name])(rest))


def _help(commands: Mapping[str, Command], prog: str, code: int) -> int:
    sys.stdout.write(_usage(commands, prog))
    return code


def load_command(command: Command) -> Callable[[list[str]], int]:
    """Import a command's function."""
    module, _, function = command.entry_point.partition(":")
    return cast("Callable[[list[str]], int]", getattr(import_module(module), function))


def _usage(commands: Mapping[str, Command], prog: str) -> str:
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in commands.items()]
    return "\n".join(
        [
            f"usage: {prog} COMMAND [options]",
            "",
            *lines,
            "",
            f"{prog} COMMAND --help lists a command's options.",
            "",
        ]
    )
