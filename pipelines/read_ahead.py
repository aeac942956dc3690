"""Overlap of stages: an iterator that runs ahead on a thread, and a clock for what each costs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["ReadAhead", "StageClock"]

T = TypeVar("T")


class StageClock:
    """Seconds spent in each stage. Stages overlap, so they add up to more than the wall clock."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds for a stage."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def timed(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Yield from `items`, counting the time that each took to come."""
        iterator = iter(items)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.add(stage, time.perf_counter() - start)
            yield item

    def take(self) -> dict[str, float]:
        """Return what was counted since the last call."""
        with self._lock:
            taken, self._seconds = self._seconds, {}
        return taken


@dataclass
class _Failure:
    error: BaseException


class _End:
    pass


class ReadAhead(Generic[T]):
    """An iterator run on a thread of its own, a few items ahead; leaving the context stops it."""

    def __init__(self, make: Callable[[], Iterator[T]], *, items: int) -> None:
        """Start the thread.

        Args:
            make: Makes the iterator, on the thread.
            items: How many items may wait.
        """
        self._queue: queue.Queue[T | _Failure | _End] = queue.Queue(maxsize=items)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(make,), daemon=True)
        self._thread.start()

    def _run(self, make: Callable[[], Iterator[T]]) -> None:
        last: _Failure | _End = _End()
        try:
            for item in make():
                if not self._put(item):
                    return
        except BaseException as error:  # handed to the consumer, which raises it
            last = _Failure(error)
        self._put(last)

    def _put(self, item: T | _Failure | _End) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __enter__(self) -> Iterator[T]:
        return iter(self)

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item
