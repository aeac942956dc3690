"""Runs work units on a Ray Data actor pool, round by round, until each has ended.

Ray never retries: a unit whose worker died (out of memory, a crash, a lost node, a stuck forward)
simply has no ending in its round and goes into the next one, two more times at the most; so does
one that the store or the network failed. From the second round on an actor works on one unit at a
time, so that a unit that kills its worker takes no innocent neighbour with it, and is named in the
end. Where worker after worker dies before anything was ever committed, the run ends instead: what
is wrong is then wrong for all units.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from encoder.errors import BackendError, ModelLoadError, SpaceMismatchError, TwofoldError
from pipelines.actor.events import (
    BeginEvent,
    Ending,
    Event,
    ShardEvent,
    UnitEvent,
    event_from_row,
)
from pipelines.actor.unit_embedder import UnitEmbedder
from pipelines.actor.unit_job import UnitJob
from pipelines.driver.outcome import Outcome
from pipelines.driver.pool import Pool
from pipelines.errors import ClusterError
from pipelines.source.units import Source, WorkUnit
from pipelines.storage import STORE_ERRORS

__all__ = ["MOST_TRIES", "run_units"]

_LOG = logging.getLogger(__name__)

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
    job: UnitJob,
    units: Mapping[str, WorkUnit],
    pool: Pool,
    *,
    replan: Callable[[Source], list[WorkUnit]],
    on_event: Callable[[Event], None],
    has_shards: bool = False,
) -> Outcome:
    """Embed units.

    Args:
        job: What they have in common.
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
            job, pending, pool, on_event, advance, has_worked=has_worked, has_shards=has_shards
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
    job: UnitJob,
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
    for event in _stream(job, list(units.values()), pool):
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


def _stream(job: UnitJob, units: list[WorkUnit], pool: Pool) -> Iterator[Event]:
    """Run one Ray Data pipeline; yield its events as the actors send them."""
    threads = str(pool.threads)
    with _data_context(), _quiet_ray_data(), warnings.catch_warnings():
        # The named parameters that replace ray_remote_args lack max_restarts and max_task_retries
        # in 2.60, and their defaults (-1, -1) retry a unit that kills its worker for ever.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        events = ray.data.from_items(
            [{"unit": unit.to_json()} for unit in units], override_num_blocks=len(units)
        ).map_batches(
            UnitEmbedder,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ActorPoolStrategy(
                min_size=min(pool.min_actors, len(units)),
                max_size=min(pool.max_actors, len(units)),
                max_tasks_in_flight_per_actor=pool.units_in_flight,
                max_concurrent_calls_per_actor=pool.units_in_flight,
                enable_true_multi_threading=pool.units_in_flight > 1,
            ),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            # Read by native thread pools when a worker starts; only the environment reaches them.
            runtime_env={
                "env_vars": {
                    "RAYON_NUM_THREADS": threads,
                    "OMP_NUM_THREADS": threads,
                    "TOKENIZERS_PARALLELISM": "true",
                }
            },
            max_restarts=-1,
            max_task_retries=0,
        )
        try:
            for row in events.iter_rows():
                yield event_from_row(row)
        except RayError as error:
            # A dead worker never comes here: this is one that cannot start, or a lost cluster.
            cause = str(error).strip().rpartition("\n")[2]
            raise ClusterError(
                f"Ray could not run the workers: {cause}; every node needs twofold installed, or "
                "start the job with `ray job submit --working-dir`. What is committed stays: the "
                "next run goes on from there"
            ) from error


@contextlib.contextmanager
def _data_context() -> Iterator[None]:
    """Set Ray Data up for a stream of small events, and put the caller's settings back."""
    context = DataContext.get_current()
    wanted = {
        # A block for every event: the default merges a unit's events into one block at its end.
        "target_max_block_size": 1,
        # A dead worker costs its units of the round, not the run.
        "max_errored_blocks": -1,
        "enable_progress_bars": False,
    }
    before = {name: getattr(context, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


class _OneLine(logging.Filter):
    """Shortens Ray Data's report of a dead worker to one line; its log files keep the rest."""

    def filter(self, record: logging.LogRecord) -> bool:
        if "Progress bars disabled" in str(record.msg):
            return False
        if record.exc_info and record.exc_info[1] is not None:
            first = str(record.exc_info[1]).strip().partition("\n")[0]
            record.msg, record.args = f"a worker died: {first}", ()
            record.exc_info, record.exc_text = None, None
        return True


@contextlib.contextmanager
def _quiet_ray_data() -> Iterator[None]:
    """Keep Ray Data's own messages to one line each while units run."""
    logger = logging.getLogger("ray.data")
    shorten = _OneLine()
    handlers = list(logger.handlers)
    level = logger.level
    for handler in handlers:
        handler.addFilter(shorten)
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            handler.removeFilter(shorten)
