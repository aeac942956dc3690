"""Progress of a run: a live line on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
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
        self._bytes = sum(unit.size_bytes for unit in units.values())
        self._done_bytes: dict[str, float] = {}
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

    def add(self, event: Event) -> None:
        """Count an event and show the line."""
        unit = self._units.get(event.unit)
        if isinstance(event, ShardEvent):
            self._rows += event.footer.documents + event.footer.rejected
            self._tokens += event.footer.tokens
            if unit and unit.rows:
                # The share of a unit's bytes that its committed rows are; elsewhere a unit's
                # bytes count when it ends.
                share = event.footer.row_stop / unit.rows
                self._done_bytes[event.unit] = unit.size_bytes * share
        elif isinstance(event, UnitEvent) and event.ending is Ending.DONE and unit:
            self._done_bytes[event.unit] = unit.size_bytes
        self._show()

    def line(self) -> str:
        """Return the progress as text."""
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        done = min(sum(self._done_bytes.values()) / self._bytes, 1.0) if self._bytes else 1.0
        left = f"{elapsed_s * (1 - done) / done:,.0f} s left" if done > 0 else "time left unknown"
        return (
            f"{self._rows:,} rows, {self._tokens / elapsed_s:,.0f} tokens/s, "
            f"{done:.0%} of {self._bytes / 1e6:,.1f} MB, {left}"
        )

    def _show(self) -> None:
        if self._live:
            self._live.update(Text(self.line()))
            return
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            _LOG.info("%s", self.line())
