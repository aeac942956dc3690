"""All servers of a run: started one after another, and paused but for the one whose turn it is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.endpoint.requests import cosine, embed, is_answering
from benchmarks.endpoint.server import Server
from benchmarks.endpoint.systems import System
from benchmarks.errors import BenchmarkError

__all__ = ["Servers", "ray_folder"]

_START_S = 300.0
_SETTLE_S = 30.0
_ANSWERS_IN_A_ROW = 10
_CHECKED = 5
_LEAST_COSINE = 0.99
"""bfloat16 against float32 is above 0.999; another pooling of these weights is at 0.87."""


class Servers:
    """Servers that end together; for `contextlib.closing`.

    Args:
        work: For their logs.
        folder: The repository.
        queries: Asked of a server to see whether it answers.
    """

    def __init__(self, work: Path, folder: Path, queries: Sequence[str]) -> None:
        self._work = work
        self._folder = folder
        self._queries = queries
        self._stack = ExitStack()
        self._reference: list[list[float]] = []

    def close(self) -> None:
        """End them all, the last one first."""
        self._stack.close()

    def start(self, system: System) -> tuple[Server, dict[str, object]]:
        """Start a system, see that it does what the first one does, and pause it.

        Returns:
            The server, and how its start went.

        Raises:
            BenchmarkError: It does not answer, or its vectors are not those of the first one.
        """
        log = self._work / f"{system.label.replace(' ', '-')}.log"
        server = Server(system, log, self._folder)
        self._stack.callback(server.end)
        ready_s = server.wait_until(lambda: is_answering(system.port, self._queries[0]), _START_S)
        went: dict[str, object] = {"ready_s": round(ready_s, 2)}
        if system.embeds:
            went["least_cosine"] = self._agree(system)
        server.pause()
        return server, went

    @contextmanager
    def turn(self, server: Server) -> Iterator[None]:
        """Let a server run, once it answers reliably, and pause it afterwards."""
        server.resume()
        answers = 0
        deadline = time.monotonic() + _SETTLE_S
        while answers < _ANSWERS_IN_A_ROW:
            answers = answers + 1 if is_answering(server.system.port, self._queries[0]) else 0
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{server.system.label} does not answer after its pause")
        yield
        server.pause()

    def _agree(self, system: System) -> float:
        """Return the least cosine with the vectors of the system that was started first."""
        vectors = [embed(system.port, query) for query in self._queries[:_CHECKED]]
        self._reference = self._reference or vectors
        least = min(map(cosine, vectors, self._reference))
        if least < _LEAST_COSINE:
            raise BenchmarkError(
                f"{system.label} is not comparable: expected the first system's vectors (cosine of "
                f"{_LEAST_COSINE} and more), found a cosine of {least:.4f}"
            )
        return round(least, 6)


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Give a folder for a Ray of its own; Unix sockets allow 107 bytes of path."""
    with tempfile.TemporaryDirectory(prefix="tfb-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)
