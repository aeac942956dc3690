"""One work unit from end to end: read -> tokenize -> encode -> write, as a Ray Data actor.

The actor is told of a unit and answers with counts; rows and vectors never travel through Ray.
A unit's shards are committed in order. Before a shard's forward the actor looks whether somebody
has committed it already (another job on the same output, an earlier try) and goes on behind it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from encoder.differences import shown_differences
from encoder.encoder import Encoder, load_encoder
from encoder.errors import BackendError, ModelLoadError, SpaceMismatchError, TwofoldError
from encoder.probe_vectors import ProbeVectors
from pipelines.actor.canaries import Canaries
from pipelines.actor.events import BeginEvent, Ending, Event, ShardEvent, UnitEvent, event_to_row
from pipelines.actor.forward import Embedded, Forward, deadline
from pipelines.actor.prepare import PreparedBatch, prepare
from pipelines.actor.shard_stream import bad_row_error, check_version, cut_into_shards, documents_of
from pipelines.actor.shard_writer import ShardWriter
from pipelines.actor.unit_job import UnitJob, code_digest, twofold_version
from pipelines.corpus.earlier_shards import EarlierShards
from pipelines.corpus.earlier_texts import EarlierTexts, EarlierVectors, FoundVectors
from pipelines.corpus.probe_vectors import agree_on_probe_vectors
from pipelines.corpus.shards import DATA, ShardName, UnitShards, group_by_unit, read_footer
from pipelines.errors import SourceChangedError, StorageError
from pipelines.read_ahead import ReadAhead, StageClock
from pipelines.settings import OnInvalid
from pipelines.source.units import WorkUnit
from pipelines.storage import STORE_ERRORS, Storage

__all__ = ["UnitEmbedder"]

_LOG = logging.getLogger(__name__)
_LOAD_AGAIN_AFTER_S = 30.0
_READ_AHEAD_BATCHES = 8
"""Batches of at most 1,024 rows and 8 MB of text; a shard of the default size is ten of them."""
_MESSAGE_CHARACTERS = 2000
"""Errors may quote what a file says of itself; messages travel through Ray into the report."""


class UnitEmbedder:
    """Embeds units. Made once in every actor; the model loads with the first unit."""

    def __init__(self, job: UnitJob) -> None:
        """Keep the job; an actor that fails to start would be replaced for ever, so load later."""
        self._job = job
        self._storage = Storage(job.output)
        self._load_lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._has_failed_to_load = False
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._writer = ThreadPoolExecutor(max_workers=2, thread_name_prefix="write-behind")

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Iterator[dict[str, list[str]]]:
        """Embed one unit, given as the only row's `unit` descriptor; yield events as rows."""
        if other := self._other_version():
            # Before the descriptor is read, which may be one of another version.
            yield event_to_row(UnitEvent("", Ending.MISMATCH, other))
            return
        unit = WorkUnit.from_json(str(batch["unit"][0]))
        yield event_to_row(BeginEvent(unit.key, self._name))
        for event in self.events(unit):
            yield event_to_row(event)
            if isinstance(event, UnitEvent) and event.ending is Ending.BROKEN:
                # A lost device fails every unit at once, and would so be given most of them.
                _LOG.error("%s; ending this worker", event.message)
                os._exit(1)

    def _other_version(self) -> str:
        """Return how this worker's twofold is not the driver's; "" where it is.

        What one version adds to a job or a unit another ignores, or cannot read.
        """
        # A job of a version before this check has none.
        if getattr(self._job, "code", "") == code_digest():
            return ""
        theirs = getattr(self._job, "version", "an older one")
        return (
            f"expected the driver's version of twofold ({theirs}) on {self._name}, found "
            f"{twofold_version()}; install the same on every node, or start the job with "
            "`ray job submit --working-dir`"
        )

    def events(self, unit: WorkUnit) -> Iterator[Event]:
        """Embed a unit; yield an event for each shard and one for the unit's end."""
        clock = StageClock()
        writes = _WriteBehind(self._writer, clock)
        ending = UnitEvent(unit.key, Ending.DONE)
        for step in (partial(self._embed, unit, writes, clock), writes.collect):
            try:
                yield from step()
            except Exception as error:  # the actor's boundary: the driver reports what ends here
                ending = _ending(unit, error)
        yield replace(ending, seconds=clock.take())

    def _embed(
        self, unit: WorkUnit, writes: _WriteBehind, clock: StageClock
    ) -> Iterator[ShardEvent]:
        loaded = self._load()
        check_version(unit.source)
        begun_at = -1
        while not (committed := self._committed(unit)).complete:
            ordinal = committed.next_ordinal
            if ordinal <= begun_at:
                raise StorageError(
                    f"{self._storage.uri} does not list shard {ordinal - 1} of {unit.label} after "
                    "its commit; the store's listings must be consistent"
                )
            begun_at = ordinal
            row = self._row_after(committed.names[ordinal - 1]) if ordinal else 0
            todo = _Remainder(unit, ordinal, row)
            yield from self._embed_shards(todo, loaded, writes, clock)
            yield from writes.collect()

    def _embed_shards(
        self, todo: _Remainder, loaded: _Loaded, writes: _WriteBehind, clock: StageClock
    ) -> Iterator[ShardEvent]:
        """Embed a unit from a shard on, until its end or until somebody is found to be ahead."""
        layout = self._job.pin.layout
        ordinal = todo.ordinal
        earlier = _EarlierOfUnit(self._job.earlier, todo.unit, loaded.earlier)
        with ReadAhead(
            partial(self._prepared, todo, loaded.encoder, clock), items=_READ_AHEAD_BATCHES
        ) as ahead:
            for batch, last in cut_into_shards(
                clock.timed("wait", ahead),
                rows_per_shard=layout.rows_per_shard,
                row_start=todo.row,
                carried=self._job.pin.carried,
            ):
                if ordinal in self._committed(todo.unit, ordinal).names:
                    return
                found = earlier.find(batch, clock)
                embedded = self._forward(todo.unit, loaded, batch, found)
                clock.add("encode", embedded.seconds)
                for event in writes.collect():
                    yield event
                    if event.duplicate:
                        return
                write = partial(
                    loaded.writer.commit,
                    todo.unit,
                    ShardName(todo.unit.key, ordinal, last),
                    embedded,
                    clock=clock,
                )
                writes.submit(write)
                ordinal += 1

    def _forward(
        self, unit: WorkUnit, loaded: _Loaded, batch: PreparedBatch, found: FoundVectors | None
    ) -> Embedded:
        embedded = loaded.forward.embed(batch, found)
        if self._job.on_invalid is OnInvalid.FAIL:
            for reject in embedded.batch.rejects:
                if reject.stage == "encode":
                    raise bad_row_error(unit, reject)
        return embedded

    def _prepared(
        self, todo: _Remainder, encoder: Encoder, clock: StageClock
    ) -> Iterator[PreparedBatch]:
        """Read and tokenize; runs on the read-ahead thread."""
        job = self._job
        documents = documents_of(
            todo.unit, job.pin.columns, skip_rows=todo.row, on_invalid=job.on_invalid
        )
        for batch in clock.timed("read", documents):
            start = time.perf_counter()
            prepared = prepare(batch, encoder, job.role, job.long_texts)
            clock.add("tokenize", time.perf_counter() - start)
            yield prepared

    def _committed(self, unit: WorkUnit, ordinal: int | None = None) -> UnitShards:
        """List what is committed of a unit; with an ordinal only the names that begin with it.

        A unit may have a hundred thousand shards: all of them before each would be a million LISTs.
        """
        prefix = unit.key if ordinal is None else ShardName(unit.key, ordinal, last=False).stem
        names = self._storage.sizes(DATA, prefix=prefix)
        return group_by_unit(names).get(unit.key, UnitShards())

    def _row_after(self, name: ShardName) -> int:
        return read_footer(self._storage, name)[0].row_stop

    def _load(self) -> _Loaded:
        with self._load_lock:
            if self._loaded is None:
                job = self._job
                if self._has_failed_to_load:
                    # Or it would fail one unit after the other while the other workers yet load.
                    time.sleep(_LOAD_AGAIN_AFTER_S)
                try:
                    encoder, known = self._open_encoder()
                except ModelLoadError:
                    self._has_failed_to_load = True
                    raise
                except (RuntimeError, MemoryError) as error:
                    raise BackendError(f"the model does not load here: {error}") from error
                canaries = Canaries(encoder, known, job.role)
                self._loaded = _Loaded(
                    encoder,
                    Forward(encoder, job.role, canaries, batch_timeout_s=job.batch_timeout_s),
                    ShardWriter(job, encoder.provenance),
                    EarlierVectors(
                        self._storage, space=job.pin.space, provenance=encoder.provenance
                    ),
                )
            return self._loaded

    def _open_encoder(self) -> tuple[Encoder, ProbeVectors]:
        """Load the model, which must be the driver's and compute what the corpus' first one did.

        Returns:
            The encoder, and what it computes.
        """
        job = self._job
        encoder = load_encoder(job.encoder)
        differences = job.pin.space.differences(encoder.space)
        if differences:
            raise SpaceMismatchError(
                f"the model {job.encoder.model} on this worker is not the driver's: "
                f"{shown_differences(differences, 'driver', 'worker')}; mirror it with "
                "`twofold pull` and give the mirror to all of them"
            )
        with deadline(job.batch_timeout_s):
            return encoder, agree_on_probe_vectors(self._storage, encoder)


@dataclass(frozen=True)
class _Loaded:
    """What an actor makes once, with the model."""

    encoder: Encoder
    forward: Forward
    writer: ShardWriter
    earlier: EarlierVectors


@dataclass(frozen=True)
class _Remainder:
    """What is left of a unit: its shards from `ordinal` on, which begin at source row `row`."""

    unit: WorkUnit
    ordinal: int
    row: int


class _EarlierOfUnit:
    """What the corpus may hold of a unit's texts already; looks further on as the unit goes on."""

    def __init__(self, shards: EarlierShards, unit: WorkUnit, vectors: EarlierVectors) -> None:
        self._shards = shards
        self._unit = unit
        self._vectors = vectors
        self._texts: EarlierTexts | None = None

    def find(self, batch: PreparedBatch, clock: StageClock) -> FoundVectors | None:
        names = self._shards.of(self._unit, batch.row_start)
        if not names:
            return None
        start = time.perf_counter()
        if self._texts is None or self._texts.names != names:
            self._texts = EarlierTexts(names, self._vectors)
        found = self._texts.find(batch.hashes)
        clock.add("reuse", time.perf_counter() - start)
        return found


class _WriteBehind:
    """At most one shard of a unit being written while the next one is in its forward."""

    def __init__(self, pool: ThreadPoolExecutor, clock: StageClock) -> None:
        self._pool = pool
        self._clock = clock
        self._pending: Future[ShardEvent] | None = None

    def submit(self, write: Callable[[], ShardEvent]) -> None:
        self._pending = self._pool.submit(write)

    def collect(self) -> Iterator[ShardEvent]:
        pending, self._pending = self._pending, None
        if pending is not None:
            # What a write costs the unit; the rest of it overlaps with the forward.
            yield from self._clock.timed("write_wait", map(Future.result, [pending]))


def _ending(unit: WorkUnit, error: Exception) -> UnitEvent:
    message = " ".join(str(error).split())[:_MESSAGE_CHARACTERS]
    if isinstance(error, SourceChangedError):
        return UnitEvent(unit.key, Ending.CHANGED, message)
    if isinstance(error, SpaceMismatchError):
        return UnitEvent(unit.key, Ending.MISMATCH, message)
    if isinstance(error, ModelLoadError):
        return UnitEvent(unit.key, Ending.FATAL, message)
    if isinstance(error, BackendError):
        return UnitEvent(unit.key, Ending.BROKEN, message)
    if isinstance(error, TwofoldError):
        kind = Ending.INTERRUPTED if isinstance(error, StorageError) else Ending.FAILED
        return UnitEvent(unit.key, kind, message)
    message = f"{unit.label}: {type(error).__name__}: {message}"
    if isinstance(error, STORE_ERRORS):
        return UnitEvent(unit.key, Ending.INTERRUPTED, message)
    _LOG.exception("unit %s failed", unit.label)
    return UnitEvent(unit.key, Ending.FAILED, message)
