"""A system's process, ordered by lines of JSON; see `benchmarks/peers/encode_worker.py`."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ordered_process import OrderedProcess

__all__ = ["Worker"]


class Worker(OrderedProcess):
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
        super().__init__(command, environment, log)
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
            return self.order(order)
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        """End the process, by force where it does not."""
        self._process.send_signal(signal.SIGCONT)
        super().end()
