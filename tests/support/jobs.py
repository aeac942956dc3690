"""The job as a user runs it: `python -m pipelines.embed_corpus` in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.processes import Finished, Running, run_module, running_module

__all__ = ["MODULE", "arguments", "embed", "embedding", "error_lines"]

MODULE = "pipelines.embed_corpus"
# One actor: loading the libraries takes a core 7 s, and every run here does it anew.
_LIGHT = ("--backend", "torch", "--num-cpus-per-actor", "1", "--actors", "1")
_SMALL = ("--rows-per-shard", "10")


def arguments(inputs: Path | str, output: Path | str, model: Path | str) -> list[str]:
    """Return the arguments of a job of small shards; what follows them wins over them."""
    return [
        "--input",
        str(inputs),
        "--output",
        str(output),
        "--model",
        str(model),
        *_LIGHT,
        *_SMALL,
    ]


def embed(
    folder: Path,
    inputs: Path | str,
    output: Path | str,
    model: Path | str,
    *more: str,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 180,
) -> Finished:
    """Run the job to its end."""
    given = [*arguments(inputs, output, model), *more]
    return run_module(folder, MODULE, *given, environment=environment, timeout_s=timeout_s)


def error_lines(stderr: str) -> list[str]:
    """Return the error lines that a command ended with, each from its "twofold: error: " on.

    Not by lines' starts and not the last line: Ray prints its workers' lines from a thread of its
    own, a line and its end by two writes, and pytest's stderr, which buffers nothing, shows ours
    between the two.
    """
    return re.findall("twofold: error: .*", stderr)


@contextmanager
def embedding(
    folder: Path,
    inputs: Path | str,
    output: Path | str,
    model: Path | str,
    *more: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Start the job; on leaving, nothing that it started is alive."""
    given = [*arguments(inputs, output, model), *more]
    with running_module(folder, MODULE, *given, environment=environment) as running:
        yield running
