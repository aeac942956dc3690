"""A process with a model in it, which answers every line of JSON with another."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from benchmarks.errors import BenchmarkError
from benchmarks.lines import Line
from benchmarks.paths import REPOSITORY
from benchmarks.peers.encode_worker import CANNOT_RUN

__all__ = ["CannotRunError", "OrderedProcess"]

_END_S = 20.0
_SHOWN = 1_500


class CannotRunError(BenchmarkError):
    """A system says that it does not run on this machine."""


class OrderedProcess:
    """The process; it says a line when it is loaded, and ends when nobody can order any more.

    Args:
        command: Starts it, in the repository.
        environment: Variables beside those of this process.
        log: Takes what it says.

    Attributes:
        loaded: What it said when it was.

    Raises:
        CannotRunError: It does not run on this machine.
        BenchmarkError: It did not load. Both hold the end of what it said.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = list(command)
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
            )
        self.loaded = self._answer()

    def order(self, line: Line) -> Line:
        """Send an order and return its answer.

        Raises:
            BenchmarkError: The process has ended.
        """
        try:
            _pipe(self._process.stdin).write(json.dumps(line).encode() + b"\n")
            _pipe(self._process.stdin).flush()
        except BrokenPipeError as error:
            raise self._ended() from error
        return self._answer()

    def end(self) -> None:
        """End the process, by force where it does not."""
        _pipe(self._process.stdin).close()
        self._wait()
        _pipe(self._process.stdout).close()

    def _wait(self) -> int:
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _answer(self) -> Line:
        text = _pipe(self._process.stdout).readline()
        if not text:
            raise self._ended()
        answer: Line = json.loads(text)
        return answer

    def _ended(self) -> BenchmarkError:
        code = self._wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                _pipe(pipe).close()
        said = self._log.read_text(errors="replace")[-_SHOWN:].strip()
        kind = CannotRunError if code == CANNOT_RUN else BenchmarkError
        return kind(f"{' '.join(self._command)} ended with {code}: {said}")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise BenchmarkError("expected a pipe to the process, found none")
    return pipe
