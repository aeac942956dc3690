"""One Ray Data pipeline over work units: an actor pool that runs each once, and what it says.

Ray retries nothing here, and its own messages are kept to a line each; what is tried again is
`execute`'s affair.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import deque
from collections.abc import Iterator, Sequence

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from encoder.errors import one_line
from pipelines.actor.events import DeathEvent, Event, event_from_row
from pipelines.actor.unit_embedder import UnitEmbedder
from pipelines.actor.unit_job import UnitJob
from pipelines.driver.pool import Pool
from pipelines.errors import ClusterError
from pipelines.source.units import WorkUnit

__all__ = ["stream_events"]

_NAMES_OF_AN_ACTOR = ("class_name:", "actor_id:", "name:", "namespace:")
_SHOWN_CHARACTERS = 400


def stream_events(job: UnitJob, units: Sequence[WorkUnit], pool: Pool) -> Iterator[Event]:
    """Run each unit once on actors; yield their events as they send them.

    A unit whose worker dies has no ending among them; what Ray says of the worker is an event.

    Raises:
        ClusterError: Ray cannot start the workers, or the cluster is lost.
    """
    threads = str(pool.threads)
    with _data_context(), _quiet_ray_data() as deaths, warnings.catch_warnings():
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
                yield from _taken(deaths)
                yield event_from_row(row)
            yield from _taken(deaths)
        except RayError as error:
            # A dead worker never comes here: this is one that cannot start, or a lost cluster.
            cause = str(error).strip().rpartition("\n")[2]
            raise ClusterError(
                f"Ray could not run the workers: {cause}; every node needs the same "
                "version of twofold, or start the job with `ray job submit --working-dir`. What is "
                "committed stays: the next run goes on from there"
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
    """Shortens Ray Data's report of a dead worker to one line, and keeps it.

    On Kubernetes Ray's own log files, which have the rest, go with the cluster.

    Attributes:
        deaths: The lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deaths: deque[str] = deque()

    def filter(self, record: logging.LogRecord) -> bool:
        if "Progress bars disabled" in str(record.msg):
            return False
        if record.exc_info and record.exc_info[1] is not None:
            told = _in_one_line(record.exc_info[1])
            self.deaths.append(told)
            record.msg, record.args = f"a worker died: {told}", ()
            record.exc_info, record.exc_text = None, None
        return True


def _in_one_line(error: BaseException) -> str:
    """Return where a worker died and why, as far as Ray knows, or what it raised."""
    if isinstance(error, RayTaskError):
        return one_line(error.cause)[:_SHOWN_CHARACTERS]
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    if isinstance(error, ActorDiedError) and len(lines) > 1:
        # What names the actor says nothing outside of Ray.
        told = " ".join(line for line in lines[1:] if not line.startswith(_NAMES_OF_AN_ACTOR))
    else:
        told = lines[-1]
    return told[:_SHOWN_CHARACTERS]


def _taken(deaths: deque[str]) -> Iterator[DeathEvent]:
    while deaths:
        yield DeathEvent(deaths.popleft())


@contextlib.contextmanager
def _quiet_ray_data() -> Iterator[deque[str]]:
    """Keep Ray Data's own messages to one line each while units run; yield those of deaths."""
    logger = logging.getLogger("ray.data")
    shorten = _OneLine()
    handlers = list(logger.handlers)
    level = logger.level
    for handler in handlers:
        handler.addFilter(shorten)
    logger.setLevel(logging.WARNING)
    try:
        yield shorten.deaths
    finally:
        logger.setLevel(level)
        for handler in handlers:
            handler.removeFilter(shorten)
