"""Runs work units, round by round, until each has ended.

Ray never retries: a unit whose worker died (out of memory, a crash, a lost node, a stuck forward)
simply has no ending in its round and goes into the next one, two more times at the most; so does
one that the store or the network failed. From the second round on an actor works on one unit at a
time, so that a unit that kills its worker takes no innocent neighbour with it, and is named in the
end. Who is to blame, and whether all are, says `pipelines.driver.ledger`.

Knows events alone: what runs the units and sends them is `pipelines.driver.ray_stream`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from encoder.errors import TwofoldError
from pipelines.actor.events import Ending, Event, UnitEvent
from pipelines.driver.ledger import MOST_TRIES, Ledger
from pipelines.driver.outcome import Outcome
from pipelines.driver.pool import Pool
from pipelines.source.units import Source, WorkUnit
from pipelines.storage import STORE_ERRORS

__all__ = ["run_units"]

_LOG = logging.getLogger(__name__)

_Stream = Callable[[Sequence[WorkUnit], Pool], Iterator[Event]]
"""Runs each unit once on the pool and yields what comes of them (`ray_stream.stream_events`)."""

_TRIED_AGAIN = (Ending.INTERRUPTED, Ending.BROKEN, Ending.FATAL)
"""A model that does not load ends the run where it loads nowhere; else it is a worker whose store,
hub, disk or device fails it."""


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
        ModelLoadError: No unit can be embedded (the model loads on no worker).
        SpaceMismatchError: The model on a worker is of another space, or computes other vectors.
        BackendError: The model fails on worker after worker, and nothing is committed meanwhile.
        ClusterError: Ray cannot start the workers; or nothing was ever committed, and they die.
    """
    outcome = Outcome(dict(units))
    ledger = Ledger(has_shards=has_shards)
    pending = dict(units)
    while pending:
        ledger.begin_round(pool)
        for event in stream(list(pending.values()), pool):
            ledger.add(event)
            on_event(event)
        ledger.end_round()
        again = {}
        for key, unit in pending.items():
            ending = ledger.ending_of(unit)
            if ending.ending in _TRIED_AGAIN:
                if ledger.may_be_tried_again(key):
                    again[key] = unit
                    _LOG.warning("%s; trying it again", ending.message)
                else:
                    outcome.failures[unit.label] = f"{ending.message}; tried {MOST_TRIES} times"
            elif ending.ending is Ending.FAILED:
                outcome.failures[unit.label] = ending.message
        again.update(_replanned(outcome, pending, ledger.endings, replan))
        pending = {key: unit for key, unit in again.items() if key in outcome.units}
        if pending:
            ledger.wait_for_the_store()
        pool = replace(pool, units_in_flight=1)
    return outcome


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
    of_source = _keys_by_source(outcome.units)
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
