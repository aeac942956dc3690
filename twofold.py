"""The console script: `twofold COMMAND ...` finds a command and hands it its arguments.

This module knows nothing of what a command does.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from command_line.commands import Command, run_one_of

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, Command] = {
    "embed": Command(
        "pipelines.embed_corpus:main", "Embed a corpus with Ray Data, resumable, into Parquet"
    ),
    "verify": Command(
        "pipelines.verify:main", "Check an output: shards, counts, ids, vectors against fp32"
    ),
    "search": Command("pipelines.search:main", "Search an output by meaning, exactly"),
    "plan": Command(
        "pipelines.plan_capacity:main", "Estimate what a corpus would take: hours, bytes, the limit"
    ),
    "serve": Command("serving.serve:main", "Serve query embeddings over HTTP, autoscaled"),
    "demo": Command("pipelines.demo:main", "Embed Python's own docstrings and ask a few questions"),
    "export": Command(
        "pipelines.export:main", "Write a model for sentence-transformers, ONNX or OpenVINO"
    ),
    "pull": Command("pipelines.pull:main", "Mirror a model to a folder or an object store"),
    "quantize": Command(
        "pipelines.quantize:main", "Mirror a model with an int8 graph, calibrated on a corpus"
    ),
    "evaluate": Command(
        "pipelines.evaluate:main", "Measure a model: retrieval, STS, classification, mteb, a card"
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: The command's name and its arguments; None for those of the process.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["--version"]:
        sys.stdout.write(f"twofold {_version()}\n")
        return 0
    return run_one_of(COMMANDS, arguments, prog="twofold")


def _version() -> str:
    try:
        return version("twofold")
    except PackageNotFoundError:
        return "(not installed: run from its source folder)"


if __name__ == "__main__":
    sys.exit(main())
