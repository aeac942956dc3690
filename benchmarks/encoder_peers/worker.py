"""A system's process, ordered by lines of JSON; see `benchmarks/peers/encode_worker.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.errors import BenchmarkError
from benchmarks.paths import REPOSITORY
from benchmarks.peers.encode_worker import CANNOT_RUN

__all__ = ["CannotRunError", "Worker"]

_END_S = 20.0
_SHOWN = 1_500


class CannotRunError(BenchmarkError):
    """A system says that it does not run on this machine."""


class Worker:
    """One process with one system and one model in it. It is stopped between orders.

    Args:
        command: Starts it.
        environment: Variables beside those of this process.
        log: Takes what it says.

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
        self._answer()  # it is loaded
        self._process.send_signal(signal.SIGSTOP)

    def encode(
        self,
        texts: Path,
        count: int,
        *,
        pooling: str,
        least_s: float,
        vectors: Path | None = None,
        each: bool = False,
    ) -> dict[str, Any]:
        """Encode the first texts of a file and return `seconds` and `peak_rss_bytes`.

        Args:
            texts: A JSON list of strings.
            count: How many of them.
            pooling: "mean" or "cls"; libraries pool by the mean for either.
            least_s: Encode them again until so much time is over.
            vectors: Where to write their vectors, before anything is timed; None for not.
            each: One call a text, and its seconds, instead of one call for all.

        Raises:
            BenchmarkError: The process has ended.
        """
        order = {
            "texts": str(texts),
            "count": count,
            "pooling": pooling,
            "least_s": least_s,
            "vectors": None if vectors is None else str(vectors),
            "each": each,
        }
        # Libraries have threads that look for work, which others would feel.
        self._process.send_signal(signal.SIGCONT)
        try:
            _pipe(self._process.stdin).write(json.dumps(order).encode() + b"\n")
            _pipe(self._process.stdin).flush()
            return self._answer()
        except BrokenPipeError as error:
            raise self._ended() from error
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        """End the process, by force where it does not."""
        self._process.send_signal(signal.SIGCONT)
        _pipe(self._process.stdin).close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()

    def _answer(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> BenchmarkError:
        code = self._process.wait()
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
