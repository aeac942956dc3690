"""What a run knows of its units and workers, and by it who is tried again and what ends the run.

Where worker after worker dies before anything was ever committed, or a model loads on none, what is
wrong is wrong for all units: the run ends. A unit that gets on, be it slowly, is never to blame,
and one worker on which the model does not load stops none of the others.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field

from encoder.errors import BackendError, ModelLoadError, SpaceMismatchError
from pipelines.actor.events import BeginEvent, DeathEvent, Ending, Event, ShardEvent, UnitEvent
from pipelines.driver.pool import Pool
from pipelines.errors import ClusterError
from pipelines.source.units import WorkUnit

__all__ = ["MOST_TRIES", "Ledger"]

_LOG = logging.getLogger(__name__)

MOST_TRIES = 3
"""A unit that kills its worker is tried again twice."""
_PAUSES_S = (15.0, 60.0)
"""After the first round that ends with a store that fails, and after the next ones in a row. One
that is gone for two minutes, beside what its client tries again by itself, so ends no run."""
_MOST_LOST_AT_FIRST = 16
_TIMES_LOST_AT_FIRST = 4
"""Units that may be lost in a round before anything was ever committed: so many, or so many times
those that all actors hold (a lost cluster takes them at once), whichever is more."""
_MOST_LOADS = 2
"""A worker without a model waits half a minute before it tries again: a full disk or an answer of a
busy hub is no reason to end a run, the same one on all workers twice is."""
_MOST_LOADS_LATER = 16
"""Where something was committed before: a hub or a mirror may be gone for some minutes."""
_SHOWN_DEATHS = 3


@dataclass
class _Round:
    """What is known of a round.

    Attributes:
        at_once: Units under way at the most.
        actors: Workers at the most.
        endings: How units ended, by key; one whose worker died has no ending.
        begun: Units that a worker has begun.
        workers: By the key of the unit that each has begun.
        failed_loads: How often the model did not load on a worker.
        broken: What workers said that ended themselves, since the last shard was committed.
        deaths: What Ray said of workers that died.
        got_on: Keys of units of which a shard was committed that no try before had come to.
        is_stalled: Whether a store, or a network, failed the last unit that ended.
    """

    at_once: int
    actors: int
    endings: dict[str, UnitEvent] = field(default_factory=dict)
    begun: int = 0
    workers: dict[str, str] = field(default_factory=dict)
    failed_loads: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    got_on: set[str] = field(default_factory=set)
    is_stalled: bool = False


class Ledger:
    """The events of a run, round by round."""

    def __init__(self, *, has_shards: bool) -> None:
        """Begin a run.

        Args:
            has_shards: Whether an earlier one committed shards of these sources.
        """
        self._has_shards = has_shards
        self._has_worked = False
        self._tries: Counter[str] = Counter()
        self._furthest: dict[str, int] = {}
        self._stalled_rounds = 0
        self._round = _Round(0, 0)

    @property
    def endings(self) -> dict[str, UnitEvent]:
        """How units ended in this round, by key."""
        return self._round.endings

    def begin_round(self, pool: Pool) -> None:
        """Begin a round on a pool."""
        self._round = _Round(pool.max_actors * pool.units_in_flight, pool.max_actors)

    def add(self, event: Event) -> None:
        """Take note of an event.

        Raises:
            ModelLoadError: The model has loaded on no worker.
            SpaceMismatchError: The model on a worker is of another space, or computes others.
            BackendError: The model fails on worker after worker, and nothing is committed.
            ClusterError: Nothing was ever committed, and workers die.
        """
        if isinstance(event, BeginEvent):
            self._round.begun += 1
            self._round.workers[event.unit] = event.worker
        elif isinstance(event, DeathEvent):
            self._round.deaths.append(event.message)
        elif isinstance(event, ShardEvent):
            self._add_shard(event)
        else:
            self._add_ending(event)
        self._check_lost()

    def end_round(self) -> None:
        """End a round.

        Raises:
            ModelLoadError: All of its units met a worker on which the model does not load.
        """
        endings = list(self.endings.values())
        loads_nowhere = endings and all(event.ending is Ending.FATAL for event in endings)
        if loads_nowhere and not self._has_worked:
            raise ModelLoadError(endings[-1].message)

    def ending_of(self, unit: WorkUnit) -> UnitEvent:
        """Return how a unit of this round ended; one whose worker died was interrupted."""
        return self.endings.get(unit.key) or UnitEvent(
            unit.key, Ending.INTERRUPTED, self._killed(unit)
        )

    def may_be_tried_again(self, key: str) -> bool:
        """Count a try of a unit in this round; return whether it may have another.

        One that gets on, a file of hours on nodes that come and go, may have as many as it takes.
        """
        self._tries[key] = 1 if key in self._round.got_on else self._tries[key] + 1
        return self._tries[key] < MOST_TRIES

    def wait_for_the_store(self) -> None:
        """Wait where a round ended with a store, or a network, that fails."""
        self._stalled_rounds = self._stalled_rounds + 1 if self._round.is_stalled else 0
        if self._stalled_rounds:
            pause_s = _PAUSES_S[min(self._stalled_rounds, len(_PAUSES_S)) - 1]
            _LOG.warning("units end because their store fails: waiting %.0f s", pause_s)
            time.sleep(pause_s)

    def _add_shard(self, event: ShardEvent) -> None:
        self._has_worked = True
        self._round.broken.clear()
        if event.footer.ordinal > self._furthest.get(event.unit, -1):
            self._furthest[event.unit] = event.footer.ordinal
            self._round.got_on.add(event.unit)
            self._round.is_stalled = False

    def _add_ending(self, event: UnitEvent) -> None:
        now = self._round
        if event.ending is Ending.MISMATCH:
            before = f"; before, a worker ended itself: {now.broken[-1]}" if now.broken else ""
            raise SpaceMismatchError(f"{event.message}{before}")
        now.endings[event.unit] = event
        now.is_stalled = event.ending in (Ending.INTERRUPTED, Ending.FATAL)
        self._has_worked |= event.ending is Ending.DONE
        if event.ending is Ending.BROKEN:
            now.broken.append(event.message)
        if event.ending is Ending.FATAL:
            now.failed_loads[now.workers.get(event.unit, "")] += 1
            self._check_loads(event)

    def _check_loads(self, event: UnitEvent) -> None:
        """Raise where the model loads on no worker, though each has tried it again."""
        now = self._round
        most = _MOST_LOADS_LATER if self._has_worked else _MOST_LOADS
        without_model = sum(failures >= most for failures in now.failed_loads.values())
        # Those without a model stay alive: where they are all that there can be, others have died.
        begun = {*now.workers.values(), *now.failed_loads}
        if without_model >= min(now.actors, len(begun)):
            raise ModelLoadError(event.message)

    def _check_lost(self) -> None:
        """Raise where so many units were lost with their workers that none of them is to blame."""
        now = self._round
        died = now.begun - len(now.endings) - now.at_once
        if self._has_worked or self._has_shards:
            # Workers that die without a word may now do so of single units.
            died = 0
        lost = len(now.broken) + max(0, died)
        if lost <= max(_MOST_LOST_AT_FIRST, _TIMES_LOST_AT_FIRST * now.at_once):
            return
        if now.broken:
            raise BackendError(
                f"{lost} work units are lost with their workers, nothing is committed meanwhile; "
                f"the last worker said: {now.broken[-1]}"
            )
        raise ClusterError(
            f"{lost} work units are lost with their workers, nothing is committed (out of memory, "
            "a crash in native code, lost nodes, or forwards beyond --batch-timeout-s; the "
            f"workers' logs in the Ray session folder say which{self._told()}); try "
            "--units-in-flight 1, a lower --max-batch-tokens, or one file by itself"
        )

    def _killed(self, unit: WorkUnit) -> str:
        return (
            f"{unit.label}: its worker died (out of memory, a crash in native code, a lost node, "
            "or a forward beyond --batch-timeout-s; the worker's log in the Ray session folder "
            f"says which{self._told()})"
        )

    def _told(self) -> str:
        """Return what Ray said last; which units the workers had it does not say."""
        deaths = list(dict.fromkeys(self._round.deaths))[-_SHOWN_DEATHS:]
        return f"; Ray said: {' | '.join(deaths)}" if deaths else ""
