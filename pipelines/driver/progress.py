"""Progress of a run: a live line on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipelines.actor.events import Ending, Event, ShardEvent, UnitEvent
from pipelines.source.units import WorkUnit

__all__ = ["Progress"]

_LOG = logging.getLogger(__name__)
_LOG_EVERY_S = 10.0


class Progress:
    """Rows done, tokens/s and the time left, judged by the input bytes that are done."""

    def __init__(self, units: Mapping[str, WorkUnit], console: Console) -> None:
        """Take the units that are to be embedded.

        Args:
            units: By key.
            console: Where a terminal shows the live line.
        """
        self._units: dict[str, WorkUnit] = {}
        self._keys: dict[str, set[str]] = defaultdict(set)  # by source
        self._total_bytes = 0
        self._ended: set[str] = set()
        self._ended_bytes = 0
        for unit in units.values():
            self._take(unit)
        # Of units that have begun and not ended: a line looks at no others, of which there are
        # a hundred thousand.
        self._rows_done: dict[str, int] = {}
        # Of units that ended: compressed files do not say how far one is, but for their rows.
        self._counted_rows = 0
        self._counted_bytes = 0
        self._rows = 0
        self._tokens = 0
        self._started = time.monotonic()
        self._logged = 0.0
        self._live = Live(console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def add_units(self, units: Iterable[WorkUnit]) -> None:
        """Take units that were planned meanwhile, because their source has changed.

        They stand in the place of the units of the version that is gone.
        """
        added = list(units)
        versions = {unit.source.uri: unit.source.version for unit in added}
        for uri, version in versions.items():
            for key in list(self._keys[uri]):
                if self._units[key].source.version != version:
                    self._forget(key)
        for unit in added:
            self._take(unit)

    def add(self, event: Event) -> None:
        """Count an event and show the line."""
        if isinstance(event, ShardEvent):
            self._rows += event.footer.documents + event.footer.rejected
            self._tokens += event.footer.tokens
            self._rows_done[event.unit] = event.footer.row_stop
        elif isinstance(event, UnitEvent) and event.ending is Ending.DONE:
            self._end(event.unit)
        self._show()

    def line(self) -> str:
        """Return the progress as text."""
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        total = self._total_bytes
        done = min(self._done_bytes() / total, 1.0) if total else 1.0
        left = f"{elapsed_s * (1 - done) / done:,.0f} s left" if done > 0 else "time left unknown"
        return (
            f"{self._rows:,} rows, {self._tokens / elapsed_s:,.0f} tokens/s, "
            f"{done:.0%} of {total / 1e6:,.1f} MB, {left}"
        )

    def _take(self, unit: WorkUnit) -> None:
        if unit.key not in self._units:
            self._total_bytes += unit.size_bytes
        self._units[unit.key] = unit
        self._keys[unit.source.uri].add(unit.key)

    def _forget(self, key: str) -> None:
        unit = self._units.pop(key)
        self._keys[unit.source.uri].discard(key)
        self._total_bytes -= unit.size_bytes
        if key in self._ended:
            self._ended.discard(key)
            self._ended_bytes -= unit.size_bytes

    def _end(self, key: str) -> None:
        rows = self._rows_done.pop(key, None)
        if key in self._ended or key not in self._units:
            return
        size = self._units[key].size_bytes
        self._ended.add(key)
        self._ended_bytes += size
        if rows is not None:
            self._counted_rows += rows
            self._counted_bytes += size

    def _done_bytes(self) -> float:
        begun = (
            (self._units[key], rows) for key, rows in self._rows_done.items() if key in self._units
        )
        return self._ended_bytes + sum(self._bytes_of_rows(unit, rows) for unit, rows in begun)

    def _bytes_of_rows(self, unit: WorkUnit, rows: int) -> float:
        """Return how far a unit is; 0 where no unit has ended that could tell."""
        if unit.rows:
            return unit.size_bytes * rows / unit.rows
        if not self._counted_rows:
            return 0.0
        return min(unit.size_bytes, rows * self._counted_bytes / self._counted_rows)

    def _show(self) -> None:
        if self._live:
            self._live.update(Text(self.line()))
            return
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            _LOG.info("%s", self.line())
