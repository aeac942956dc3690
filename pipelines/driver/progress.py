"""Progress of a run: a live line on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import time
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
        self._units = dict(units)
        self._rows_done: dict[str, int] = {}
        self._ended: set[str] = set()
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
        added = {unit.key: unit for unit in units}
        versions = {unit.source.uri: unit.source.version for unit in added.values()}
        kept = {
            key: unit
            for key, unit in self._units.items()
            if versions.get(unit.source.uri, unit.source.version) == unit.source.version
        }
        self._units = {**kept, **added}

    def add(self, event: Event) -> None:
        """Count an event and show the line."""
        if isinstance(event, ShardEvent):
            self._rows += event.footer.documents + event.footer.rejected
            self._tokens += event.footer.tokens
            self._rows_done[event.unit] = event.footer.row_stop
        elif isinstance(event, UnitEvent) and event.ending is Ending.DONE:
            self._ended.add(event.unit)
        self._show()

    def line(self) -> str:
        """Return the progress as text."""
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        total = sum(unit.size_bytes for unit in self._units.values())
        done = min(self._done_bytes() / total, 1.0) if total else 1.0
        left = f"{elapsed_s * (1 - done) / done:,.0f} s left" if done > 0 else "time left unknown"
        return (
            f"{self._rows:,} rows, {self._tokens / elapsed_s:,.0f} tokens/s, "
            f"{done:.0%} of {total / 1e6:,.1f} MB, {left}"
        )

    def _done_bytes(self) -> float:
        bytes_per_row = self._bytes_per_row()
        return sum(self._bytes_of(key, unit, bytes_per_row) for key, unit in self._units.items())

    def _bytes_of(self, key: str, unit: WorkUnit, bytes_per_row: float) -> float:
        if key in self._ended:
            return unit.size_bytes
        rows = self._rows_done.get(key, 0)
        if unit.rows:
            return unit.size_bytes * rows / unit.rows
        return min(unit.size_bytes, rows * bytes_per_row)

    def _bytes_per_row(self) -> float:
        """Mean of the units that ended; 0 before: compressed files do not say how far one is."""
        ended = {k: u for k, u in self._units.items() if k in self._ended and k in self._rows_done}
        rows = sum(self._rows_done[key] for key in ended)
        return sum(unit.size_bytes for unit in ended.values()) / rows if rows else 0.0

    def _show(self) -> None:
        if self._live:
            self._live.update(Text(self.line()))
            return
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            _LOG.info("%s", self.line())
