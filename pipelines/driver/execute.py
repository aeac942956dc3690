"""Runs work units, round by round, until each has ended.

Ray never retries: a unit whose worker died (out of memory, a crash, a lost node, a stuck forward)
simply has no ending in its round and goes into the next one, two more times at the most; so does
one that the store or the network failed. From the second round on an actor works on one unit at a
time, so that a unit that kills its worker takes no innocent neighbour with it, and is named in the
end. Where worker after worker dies before anything was ever committed, the run ends instead: what
is wrong is then wrong for all units.

Knows events alone: what runs the units and sends them is `pipelines.driver.ray_stream`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from encoder.errors import BackendError, ModelLoadError, SpaceMismatchError, TwofoldError
from pipelines.actor.events import BeginEvent, Ending, Event, ShardEvent, UnitEvent
from pipelines.driver.outcome import Outcome
from pipelines.driver.pool import Pool
from pipelines.errors import ClusterError
from pipelines.source.units import Source, WorkUnit
from pipelines.storage import STORE_ERRORS

__all__ = ["MOST_TRIES", "run_units"]

_LOG = logging.getLogger(__name__)

_Stream = Callable[[Sequence[WorkUnit], Pool], Iterator[Event]]
"""Runs each unit once on the pool and yields what comes of them (`ray_stream.stream_events`)."""

_TRIED_AGAIN = (Ending.INTERRUPTED, Ending.BROKEN, Ending.FATAL)
"""A model that does not load is fatal only while it has loaded nowhere: after that it is a worker
whose store, hub or device fails it."""

MOST_TRIES = 3
"""A unit that kills its worker is tried again twice."""
_PAUSES_S = (15.0, 60.0)
"""After the first round that ends with a store that fails, and after the next ones in a row. One
that is gone for two minutes, beside what its client tries again by itself, so ends no run."""
_MOST_LOST_AT_FIRST = 16
_TIMES_LOST_AT_FIRST = 4
"""Units that may be lost in a round before anything was ever committed: so many, or so many times
those that all actors hold (a lost cluster takes them at once), whichever is more."""


def run_units(
    stream: _Stream,
    units: Mapping[str, WorkUnit],
    pool: Pool,
    *,
    replan: Callable[[Source], list[WorkUnit]],
    on_event: Callable[[Event], None],
    has_shards: bool = False,
) -> Outcome:
    """Embed units.

    Args:
        stream: What runs them.
        units: The units to embed, by key, in the order of work.
        pool: The actors.
        replan: Makes the units of a source that changed since it was planned.
        on_event: Called for every event, as it comes.
        has_shards: Whether an earlier run committed shards of these sources.

    Returns:
        How it ended; failed units are named in it, not raised.

    Raises:
        ModelLoadError: No unit can be embedded (the model does not load on a worker).
        SpaceMismatchError: The model on a worker is of another space, or computes other vectors.
        BackendError: The model fails on worker after worker, and nothing is committed meanwhile.
        ClusterError: Ray cannot start the workers; or nothing was ever committed, and they die.
    """
    outcome = Outcome(dict(units))
    tries: Counter[str] = Counter()
    has_worked = False
    pending = dict(units)
    advance = _Advance()
    while pending:
        advance.begin_round()
        endings, has_worked = _run_round(
            stream, pending, pool, on_event, advance, has_worked=has_worked, has_shards=has_shards
        )
        again = {}
        for key, unit in pending.items():
            ending = endings.get(key) or UnitEvent(key, Ending.INTERRUPTED, _killed(unit))
            if ending.ending in _TRIED_AGAIN:
                # One that gets on, a file of hours on nodes that come and go, is not to blame.
                tries[key] = 1 if key in advance.units else tries[key] + 1
                if tries[key] < MOST_TRIES:
                    again[key] = unit
                    _LOG.warning("%s; trying it again", ending.message)
                else:
                    outcome.failures[unit.label] = f"{ending.message}; tried {MOST_TRIES} times"
            elif ending.ending is Ending.FAILED:
                outcome.failures[unit.label] = ending.message
        again.update(_replanned(outcome, pending, endings, replan))
        pending = {key: unit for key, unit in again.items() if key in outcome.units}
        if pending:
            advance.wait_for_the_store()
        pool = replace(pool, units_in_flight=1)
    return outcome


class _Advance:
    """Which units get on in a round, and whether their store fails those that do not.

    Attributes:
        units: Keys of those of which a shard was committed that no try before had come to.
    """

    def __init__(self) -> None:
        self.units: set[str] = set()
        self._furthest: dict[str, int] = {}
        self._is_stalled = False
        self._stalled_rounds = 0

    def begin_round(self) -> None:
        """Forget the units of the round before."""
        self.units.clear()
        self._is_stalled = False

    def add(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, ShardEvent) and event.footer.ordinal > self._furthest.get(
            event.unit, -1
        ):
            self._furthest[event.unit] = event.footer.ordinal
            self.units.add(event.unit)
            self._is_stalled = False
        elif isinstance(event, UnitEvent):
            self._is_stalled = event.ending is Ending.INTERRUPTED

    def wait_for_the_store(self) -> None:
        """Wait where a round ended with a store, or a network, that fails."""
        self._stalled_rounds = self._stalled_rounds + 1 if self._is_stalled else 0
        if self._stalled_rounds:
            pause_s = _PAUSES_S[min(self._stalled_rounds, len(_PAUSES_S)) - 1]
            _LOG.warning("units end because their store fails: waiting %.0f s", pause_s)
            time.sleep(pause_s)


def _killed(unit: WorkUnit) -> str:
    return (
        f"{unit.label}: its worker died (out of memory, a crash in native code, a lost node, or a "
        "forward beyond --batch-timeout-s; the worker's log in the Ray session folder says which)"
    )


def _replanned(
    outcome: Outcome,
    pending: Mapping[str, WorkUnit],
    endings: Mapping[str, UnitEvent],
    replan: Callable[[Source], list[WorkUnit]],
) -> dict[str, WorkUnit]:
    """Replace the units of sources that changed; a source that changes twice fails."""
    changed: dict[str, tuple[WorkUnit, str]] = {}
    for key, ending in endings.items():
        if ending.ending is Ending.CHANGED:
            changed.setdefault(pending[key].source.uri, (pending[key], ending.message))
    again: dict[str, WorkUnit] = {}
    of_source = _keys_by_source(outcome.units) if changed else {}
    for uri, (unit, message) in changed.items():
        if uri in outcome.replanned:
            outcome.failures[unit.label] = f"{message}; it was planned again once already"
            continue
        _LOG.warning("%s; planning it again", message)
        try:
            fresh = {new.key: new for new in replan(unit.source)}
        except (TwofoldError, *STORE_ERRORS) as error:
            # The old units stay in the plan, incomplete, so that nothing of the source is retired.
            outcome.failures[unit.label] = " ".join(f"{message}; {error}".split())
            continue
        outcome.replanned.add(uri)
        for key in of_source[uri]:
            outcome.failures.pop(outcome.units.pop(key).label, None)
        outcome.units.update(fresh)
        again.update(fresh)
    return again


def _keys_by_source(units: Mapping[str, WorkUnit]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = defaultdict(list)
    for key, unit in units.items():
        keys[unit.source.uri].append(key)
    return keys


def _run_round(
    stream: _Stream,
    units: Mapping[str, WorkUnit],
    pool: Pool,
    on_event: Callable[[Event], None],
    advance: _Advance,
    *,
    has_worked: bool,
    has_shards: bool,
) -> tuple[dict[str, UnitEvent], bool]:
    """Run each unit once; return how they ended, and whether this run has committed anything."""
    endings: dict[str, UnitEvent] = {}
    begun, broken = 0, list[str]()
    at_once = pool.max_actors * pool.units_in_flight
    for event in stream(list(units.values()), pool):
        if isinstance(event, BeginEvent):
            begun += 1
        elif isinstance(event, UnitEvent):
            if event.ending is Ending.MISMATCH:
                before = f"; before, a worker ended itself: {broken[-1]}" if broken else ""
                raise SpaceMismatchError(f"{event.message}{before}")
            if event.ending is Ending.FATAL and not has_worked:
                raise ModelLoadError(event.message)
            endings[event.unit] = event
            if event.ending is Ending.BROKEN:
                broken.append(event.message)
        has_worked |= isinstance(event, ShardEvent) or (
            isinstance(event, UnitEvent) and event.ending is Ending.DONE
        )
        if isinstance(event, ShardEvent):
            broken.clear()
        advance.add(event)
        on_event(event)
        # Once something is committed, workers that die without a word may do so of single units.
        died = 0 if has_worked or has_shards else max(0, begun - len(endings) - at_once)
        _check_lost(died, broken, at_once)
    return endings, has_worked


def _check_lost(died: int, broken: Sequence[str], at_once: int) -> None:
    """Raise where so many units were lost with their workers that none of them is to blame.

    Args:
        died: Units whose worker died.
        broken: What workers said that ended themselves since the last shard was committed.
        at_once: Units under way at the most.
    """
    lost = len(broken) + died
    if lost <= max(_MOST_LOST_AT_FIRST, _TIMES_LOST_AT_FIRST * at_once):
        return
    if broken:
        raise BackendError(
            f"{lost} work units are lost with their workers, nothing is committed meanwhile; the "
            f"last worker said: {broken[-1]}"
        )
    raise ClusterError(
        f"{lost} work units are lost with their workers, nothing is committed (out of memory, a "
        "crash in native code, lost nodes, or forwards beyond --batch-timeout-s; the workers' logs "
        "in the Ray session folder say which); try --units-in-flight 1, a lower "
        "--max-batch-tokens, or one file by itself"
    )
