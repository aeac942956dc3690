"""The progress line: rows, tokens/s and time left, judged by input bytes."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from typing import ClassVar

import pytest
from rich.console import Console

from pipelines.actor.events import Ending, ShardEvent, UnitEvent
from pipelines.driver import progress as progress_module
from pipelines.driver.progress import Progress
from pipelines.source.units import WorkUnit
from support.corpora import a_footer, a_source, a_unit

KNOWN = replace(a_unit(a_source("/in/a.parquet")), rows=8, size_bytes=3_000_000)
STREAM = replace(a_unit(a_source("/in/b.csv")), size_bytes=1_000_000)


class Hands:
    """Clock hands that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(progress_module, "time", hands)
    return hands


def a_progress(*units: WorkUnit, terminal: bool = False) -> tuple[Progress, io.StringIO]:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120)
    return Progress({unit.key: unit for unit in units}, console), screen


def a_shard(unit: WorkUnit, **footer: int) -> ShardEvent:
    return ShardEvent(unit.key, "x", 1, a_footer(unit, **footer), False, {}, 0.0, 0)


def test_rows_tokens_and_time_left_follow_the_events(hands):
    progress, _ = a_progress(KNOWN, STREAM)
    hands.now += 10
    assert progress.line() == "0 rows, 0 tokens/s, 0% of 4.0 MB, time left unknown"
    progress.add(a_shard(KNOWN, row_stop=4, documents=3, rejected=1, tokens=500))
    # Half of the 3 MB of the unit that knows its rows, of 4 MB in all.
    assert progress.line() == "4 rows, 50 tokens/s, 38% of 4.0 MB, 17 s left"


def test_bytes_of_a_unit_without_known_rows_count_at_its_end(hands):
    progress, _ = a_progress(KNOWN, STREAM)
    hands.now += 10
    progress.add(a_shard(STREAM))
    assert ", 0% of" in progress.line()
    progress.add(UnitEvent(STREAM.key, Ending.DONE))
    assert "25% of" in progress.line()


def test_a_unit_that_failed_is_not_done(hands):
    progress, _ = a_progress(STREAM)
    progress.add(UnitEvent(STREAM.key, Ending.FAILED, "why"))
    assert ", 0% of" in progress.line()


def test_when_all_units_are_done_nothing_is_left(hands):
    progress, _ = a_progress(KNOWN, STREAM)
    hands.now += 5
    for unit in (KNOWN, STREAM):
        progress.add(a_shard(unit, row_stop=8))
        progress.add(UnitEvent(unit.key, Ending.DONE))
    assert progress.line().endswith("100% of 4.0 MB, 0 s left")


def test_a_unit_without_known_rows_is_judged_by_the_bytes_a_row_of_units_that_ended(hands):
    first, second = (replace(a_unit(a_source(f"/in/{n}.csv")), size_bytes=10**6) for n in "12")
    progress, _ = a_progress(first, second)
    hands.now += 10
    progress.add(a_shard(first, row_stop=100))
    assert progress.line().endswith("0% of 2.0 MB, time left unknown")
    progress.add(UnitEvent(first.key, Ending.DONE))
    assert progress.line().endswith("50% of 2.0 MB, 10 s left")
    progress.add(a_shard(second, row_stop=50))
    assert progress.line().endswith("75% of 2.0 MB, 3 s left")
    progress.add(a_shard(second, row_stop=900))
    # It has shorter rows, and no more bytes than it has.
    assert "100% of 2.0 MB" in progress.line()


def test_units_that_a_changed_source_was_planned_into_replace_those_of_its_old_version(hands):
    progress, _ = a_progress(KNOWN, STREAM)
    progress.add(a_shard(KNOWN, row_stop=4))
    newer = replace(KNOWN, source=replace(KNOWN.source, version="newer"), size_bytes=5_000_000)
    progress.add_units([newer])
    assert "0% of 6.0 MB" in progress.line()
    for unit in (newer, STREAM):
        progress.add(UnitEvent(unit.key, Ending.DONE))
    assert "100% of 6.0 MB" in progress.line()


def test_events_of_units_that_nobody_announced_are_counted_by_their_rows(hands):
    progress, _ = a_progress(KNOWN)
    progress.add(a_shard(STREAM))
    progress.add(UnitEvent(STREAM.key, Ending.DONE))
    assert progress.line().startswith("2 rows")
    assert ", 0% of 3.0 MB" in progress.line()


def test_a_unit_that_ends_twice_counts_once(hands):
    progress, _ = a_progress(KNOWN, STREAM)
    for _ in range(2):
        progress.add(UnitEvent(STREAM.key, Ending.DONE))
    assert "25% of 4.0 MB" in progress.line()


def test_units_that_ended_stay_done_when_another_source_is_planned_again(hands):
    progress, _ = a_progress(KNOWN, STREAM)
    progress.add(UnitEvent(STREAM.key, Ending.DONE))
    newer = replace(KNOWN, source=replace(KNOWN.source, version="newer"))
    progress.add_units([newer])
    assert "25% of 4.0 MB" in progress.line()


class Watched(WorkUnit):
    """A unit that takes note of every look at its size."""

    looked_at: ClassVar[list[str]] = []

    def __getattribute__(self, name: str) -> object:
        if name == "size_bytes":
            self.looked_at.append(self.key)
        return super().__getattribute__(name)


def test_a_line_looks_at_no_unit_that_has_ended_or_not_begun(hands):
    """Else a driver of 100,000 units would spend hours on its progress."""
    plain = [replace(a_unit(a_source(f"/in/{n}.csv")), size_bytes=100) for n in range(50)]
    units = [Watched(**vars(unit)) for unit in plain]
    progress, _ = a_progress(*units)
    for unit in units[:20]:
        progress.add(a_shard(unit))
        progress.add(UnitEvent(unit.key, Ending.DONE))
    progress.add(a_shard(units[20]))
    Watched.looked_at.clear()
    assert "42% of" in progress.line()
    assert set(Watched.looked_at) == {units[20].key}


def test_empty_inputs_are_done(hands):
    progress, _ = a_progress(replace(STREAM, size_bytes=0))
    assert "100% of 0.0 MB" in progress.line()


def test_off_a_terminal_a_line_is_logged_now_and_then(hands, caplog):
    caplog.set_level(logging.INFO)
    progress, screen = a_progress(KNOWN)
    with progress:
        for _ in range(25):
            progress.add(a_shard(KNOWN))
            hands.now += 1
    assert len(caplog.messages) == 3
    assert all("tokens/s" in message for message in caplog.messages)
    assert screen.getvalue() == ""


def test_on_a_terminal_the_line_is_live_and_gone_at_the_end(hands, caplog):
    caplog.set_level(logging.INFO)
    progress, screen = a_progress(KNOWN, terminal=True)
    with progress:
        progress.add(a_shard(KNOWN, row_stop=4))
    assert "2 rows" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")
    assert caplog.messages == []
