"""The console script: `twofold COMMAND ...` finds a command and hands it its arguments.

Commands are imported when they are called, so `twofold --help` does not wait for torch and Ray.
This module knows nothing of what a command does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, cast

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """A command: `entry_point` is "module:function"; it takes arguments, returns an exit code."""

    entry_point: str
    summary: str


COMMANDS: dict[str, Command] = {
    "embed": Command(
        "pipelines.embed_corpus:main", "Embed a corpus with Ray Data, resumable, into Parquet"
    ),
    "verify": Command(
        "pipelines.verify:main", "Check an output: shards, counts, ids, vectors against fp32"
    ),
    "search": Command("pipelines.search:main", "Search an output by meaning, exactly"),
    "serve": Command("serving.serve:main", "Serve query embeddings over HTTP, autoscaled"),
    "demo": Command("pipelines.demo:main", "Embed Python's own docstrings and ask a few questions"),
    "pull": Command("pipelines.pull:main", "Mirror a model to a folder or an object store"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: The command's name and its arguments; None for those of the process.
    """
    arguments = sys.argv[1:] if argv is None else argv
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if arguments else 2
    if name == "--version":
        sys.stdout.write(f"twofold {_version()}\n")
        return 0
    if name not in COMMANDS:
        sys.stderr.write(
            f"twofold: error: expected one of {', '.join(COMMANDS)}, found {name!r}; "
            "see twofold --help\n"
        )
        return 2
    return _load(COMMANDS[name])(rest)


def _load(command: Command) -> Callable[[list[str]], int]:
    module, _, function = command.entry_point.partition(":")
    return cast("Callable[[list[str]], int]", getattr(import_module(module), function))


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: twofold COMMAND [options]",
            "",
            *lines,
            "",
            "twofold COMMAND --help lists a command's options; twofold --version the version.",
            "",
        ]
    )


def _version() -> str:
    try:
        return version("twofold")
    except PackageNotFoundError:
        return "(not installed: run from its source folder)"


if __name__ == "__main__":
    sys.exit(main())
