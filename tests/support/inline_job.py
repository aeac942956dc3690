"""`twofold embed` in this process, without Ray, one step at a time: it can be left at any of them.

The driver and its workers are the real ones; only who starts workers (Ray), the model (a fake) and
threads are not. A run is a thread that waits before each call of `Storage` until it may go on, so
of any number of runs one is at work at a time, and what happens in which order is the test's.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum, auto
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from encoder.encoder import EncodedVectors
from encoder.settings import EncoderSettings
from pipelines.actor.events import DeathEvent, Event, event_from_row
from pipelines.actor.unit_embedder import UnitEmbedder
from pipelines.actor.unit_job import UnitJob
from pipelines.driver.pool import Pool
from pipelines.embed_corpus import embed_corpus
from pipelines.errors import StorageError
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.units import WorkUnit
from pipelines.storage import Storage
from support.fake_encoder import SPACE, FakeEncoder

__all__ = ["Fate", "Killed", "Run", "inline_jobs"]

T = TypeVar("T")

_WRITES = ("create", "replace", "delete")
_STEPS = ("sizes", "read", "open", "size", "exists", *_WRITES)
_POOLED = (
    "pipelines.actor.unit_embedder",
    "pipelines.corpus.earlier_texts",
    "pipelines.corpus.ids",
    "pipelines.corpus.index",
    "pipelines.driver.publisher",
    "pipelines.driver.source_versions",
    "pipelines.source.plan",
)
_FAR = 10**9
_WAITS_S = 60.0


class Killed(BaseException):
    """The process of a run has died."""


class WorkerKilled(BaseException):
    """A worker of a run has died; its driver goes on."""


class Fate(Enum):
    """What becomes of a run's next step."""

    DIE = auto()
    """The process dies before it."""
    WORKER_DIES = auto()
    """Its worker dies before it; a driver's step goes well."""
    FAIL = auto()
    """The store refuses it."""
    LOSE_REPLY = auto()
    """The store does it, and does not say so."""


class SeenEncoder(FakeEncoder):
    """Takes note of the texts that it is given, by their tokens."""

    def __init__(self, texts: set[tuple[int, ...]]) -> None:
        super().__init__()
        self._texts = texts

    def encode_tokenized(self, tokenized: Any, *args: Any, **more: Any) -> EncodedVectors:
        self._texts.update(tuple(ids.tolist()) for ids in tokenized.input_ids)
        return super().encode_tokenized(tokenized, *args, **more)


class Run:
    """One call of `embed_corpus`, on a thread that stops before each step.

    Attributes:
        settings: Its settings.
        run_id: Names it; decides the order of its units.
        steps: What it has done: (verb, name) of each call of `Storage`.
        texts: Tokens of each text of a forward.
        has_met_fate: Whether any of its steps went otherwise than well.
        error: What it raised.
    """

    def __init__(self, settings: EmbedCorpusSettings, run_id: str) -> None:
        self.settings = settings
        self.run_id = run_id
        self.steps: list[tuple[str, str]] = []
        self.texts: set[tuple[int, ...]] = set()
        self.error: BaseException | None = None
        self.has_met_fate = False
        self._left = 0
        self._only_writes = False
        self._fates: deque[Fate] = deque()
        self._is_dead = False
        self._is_worker = False
        self._may_go = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self._is_over = False
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return self._is_over

    def go_on(
        self, steps: int | None = None, fates: Iterable[Fate] = (), *, only_writes: bool = False
    ) -> bool:
        """Let it do some steps, or all that are left; the first ones meet these fates.

        Args:
            steps: How many; None: all.
            fates: Of the first ones.
            only_writes: Count only steps that change the output, so that it stops before one.

        Returns:
            Whether it has come to its end.
        """
        self._fates.extend(fates)
        self._only_writes = only_writes
        self.has_met_fate |= bool(self._fates)
        self._left = _FAR if steps is None else steps
        self._may_go.release()
        if not self._has_stopped.acquire(timeout=_WAITS_S):
            raise AssertionError(f"stuck after {self.steps[-3:]}")
        return self._is_over

    def kill(self) -> None:
        """End it where it is: nothing of it is done after this."""
        if not self._is_over:
            self.go_on(fates=[Fate.DIE])
        self._thread.join()

    def _main(self) -> None:
        _RUNS.current = self
        self._may_go.acquire()
        try:
            embed_corpus(self.settings)
        except BaseException as error:
            self.error = error
        self._is_over = True
        self._has_stopped.release()

    def step(self, verb: str, name: str, do: Callable[[], T]) -> T:
        if self._is_dead:
            raise Killed
        while self._left == 0 and self._counts(verb):
            self._has_stopped.release()
            self._may_go.acquire()
        self._left -= self._counts(verb)
        self.steps.append((verb, name))
        fate = self._fates.popleft() if self._fates else None
        if fate is Fate.DIE:
            self._is_dead = True
            raise Killed
        if fate is Fate.WORKER_DIES and self._is_worker:
            raise WorkerKilled
        if fate is Fate.FAIL:
            raise StorageError(f"the store refuses {verb} {name}")
        done = do()
        if fate is Fate.LOSE_REPLY:
            if verb == "create":
                return False  # type: ignore[return-value]  # it is there: that is all it can tell
            raise StorageError(f"the store does not answer {verb} {name}")
        return done

    def _counts(self, verb: str) -> bool:
        return not self._only_writes or verb in _WRITES

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """What is done meanwhile is a worker's."""
        before, self._is_worker = self._is_worker, True
        try:
            yield
        finally:
            self._is_worker = before


_RUNS = threading.local()


def _current() -> Run | None:
    return getattr(_RUNS, "current", None)


def _stream_events(job: UnitJob, units: Sequence[WorkUnit], pool: Pool) -> Iterator[Event]:
    """Stand for `ray_stream.stream_events`: actors take turns, an event of each of their units."""
    run = _RUNS.current
    waiting = deque(units)
    actors = [UnitEmbedder(job) for _ in range(min(pool.max_actors, len(units)))]
    lanes: deque[tuple[int, Iterator[dict[str, list[str]]]]] = deque()
    free = [place for place in range(len(actors)) for _ in range(pool.units_in_flight)]
    while waiting or lanes:
        while waiting and free:
            place, unit = free.pop(0), waiting.popleft()
            lanes.append((place, actors[place]({"unit": [unit.to_json()]})))
        place, events = lanes.popleft()
        try:
            with run.at_work():
                row = next(events)
        except StopIteration:
            free.append(place)
        except WorkerKilled:
            died = [lane for lane in lanes if lane[0] == place]
            lanes = deque(lane for lane in lanes if lane[0] != place)
            for _, others in died:
                others.close()
            free += [place] * (1 + len(died))
            actors[place] = UnitEmbedder(job)
            yield DeathEvent("it was killed")
        else:
            lanes.append((place, events))
            yield event_from_row({name: values[0] for name, values in row.items()})


class _Inline:
    """A pool of no threads: what it is given is done at once."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, do: Callable[..., T], *args: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(do(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, do: Callable[..., T], *items: Iterable[Any]) -> Iterator[T]:
        futures = [self.submit(do, *args) for args in zip(*items)]  # noqa: B905  (as `map`)
        return (future.result() for future in futures)

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _NotAhead:
    """Reads when it is asked, and no sooner."""

    def __init__(self, make: Callable[[], Iterator[T]], *, items: int) -> None:
        self._items = make()

    def __enter__(self) -> Iterator[Any]:
        return self._items

    def __exit__(self, *_: object) -> None:
        self._items.close()


def _describe(settings: EncoderSettings) -> SimpleNamespace:
    space = replace(SPACE, max_seq_length=settings.max_seq_length or SPACE.max_seq_length)
    return SimpleNamespace(space=space, reference="fake", provenance={"model": "fake"})


def _pool(settings: EmbedCorpusSettings, *_: object) -> Pool:
    actors = settings.actors.max if settings.actors else 1
    return Pool(1, actors, 1.0, 0.0, settings.units_in_flight, fits_now=True)


@contextmanager
def inline_jobs(batch_rows: int = 1024) -> Iterator[None]:
    """`Run` works meanwhile.

    Args:
        batch_rows: Rows that are read of a source at a time.
    """
    with pytest.MonkeyPatch.context() as patch:
        for verb in _STEPS:
            patch.setattr(Storage, verb, _stepwise(verb, getattr(Storage, verb)))
        for module in _POOLED:
            patch.setattr(f"{module}.ThreadPoolExecutor", _Inline)
        patch.setattr("pipelines.actor.unit_embedder.ReadAhead", _NotAhead)
        patch.setattr("pipelines.source.documents.BATCH_ROWS", batch_rows)
        patch.setattr("pipelines.driver.corpus_plan.describe_model", _describe)
        patch.setattr(
            "pipelines.actor.unit_embedder.load_encoder", lambda _: SeenEncoder(_RUNS.current.texts)
        )
        patch.setattr("pipelines.embed_corpus._start_ray", _pool)
        patch.setattr(
            "pipelines.embed_corpus.uuid",
            SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=_RUNS.current.run_id)),
        )
        patch.setitem(
            sys.modules,
            "pipelines.driver.ray_stream",
            SimpleNamespace(stream_events=_stream_events),
        )
        # Nobody waits for a store here, and no power is cut.
        patch.setattr("time.sleep", lambda _: None)
        patch.setattr("os.fsync", lambda _: None)
        yield


def _stepwise(verb: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def call(self: Storage, name: str, *args: Any, **more: Any) -> Any:
        do = partial(original, self, name, *args, **more)
        run = _current()
        return do() if run is None else run.step(verb, name, do)

    return call
