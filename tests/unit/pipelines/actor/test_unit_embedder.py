"""One unit from end to end in this process: shards, resuming, rivals, lost replies, changes."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from encoder.corpus_files import PROBE_VECTORS_FILE
from encoder.encoder import Encoder
from encoder.errors import ModelLoadError
from encoder.settings import BackendName, EncoderSettings
from pipelines.actor import unit_embedder
from pipelines.actor.events import BeginEvent, Ending, Event, ShardEvent, UnitEvent, event_from_row
from pipelines.actor.prepare import text_hash
from pipelines.actor.unit_embedder import UnitEmbedder
from pipelines.actor.unit_job import UnitJob, code_digest, twofold_version
from pipelines.corpus.earlier_shards import EarlierShard, EarlierShards
from pipelines.corpus.earlier_texts import EarlierTexts
from pipelines.corpus.shards import (
    DATA,
    REJECTS,
    REUSED_ROWS,
    REUSED_TOKENS,
    ShardName,
    read_footer,
)
from pipelines.errors import StorageError, UnreadableSourceError
from pipelines.settings import OnInvalid
from pipelines.source.units import RangeKind, WorkUnit
from pipelines.storage import Storage
from support.corpora import a_job, jsonl, units_of
from support.fake_encoder import SPACE, FakeEncoder, vector_of

TEXTS = [f"text number {n}" for n in range(7)]


@dataclass
class Bench:
    """A source of seven texts, an output, and an encoder for each embedder that is made."""

    folder: Path
    encoders: list[FakeEncoder] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.folder / "a.jsonl"

    @property
    def unit(self) -> WorkUnit:
        return units_of(self.source)[0]

    @property
    def storage(self) -> Storage:
        return Storage(str(self.folder / "out"))

    def embedder(self, job: UnitJob | None = None) -> UnitEmbedder:
        return UnitEmbedder(job or a_job(self.folder / "out"))

    def embed(self, job: UnitJob | None = None) -> list[Event]:
        return list(self.embedder(job).events(self.unit))

    def job_after(self, names: Sequence[ShardName]) -> UnitJob:
        """Return a job whose source was embedded into these shards before it changed."""
        uri = self.unit.source.uri
        shards = [EarlierShard(uri, 0, 3 * name.ordinal, name, 3) for name in names]
        earlier = EarlierShards({uri: shards})
        return replace(a_job(self.folder / "out"), earlier=earlier)

    def names(self) -> list[ShardName]:
        return sorted(filter(None, map(ShardName.parse, self.storage.sizes(DATA))))

    def ids(self) -> list[str]:
        return [row for name in self.names() for row in self.table(name)["id"].to_pylist()]

    def table(self, name: object, folder: str = DATA):
        return pq.read_table(io.BytesIO(self.storage.read(f"{folder}/{name}")))


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    bench = Bench(tmp_path)
    jsonl(bench.source, TEXTS)

    def load(_: EncoderSettings) -> FakeEncoder:
        return bench.encoders.pop(0) if bench.encoders else FakeEncoder()

    monkeypatch.setattr(unit_embedder, "load_encoder", load)
    return bench


def hooked(*hooks: Callable[[], None]) -> FakeEncoder:
    """Return an encoder that calls one hook before each of its first forwards."""
    encoder, waiting = FakeEncoder(), list(hooks)

    def before_forward() -> None:
        if waiting:
            waiting.pop(0)()

    encoder.on_forward = before_forward
    return encoder


def nothing() -> None:
    return None


def shards_of(events: list[Event]) -> list[ShardEvent]:
    return [event for event in events if isinstance(event, ShardEvent)]


def ordinals(events: list[Event]) -> list[int]:
    return [event.footer.ordinal for event in shards_of(events)]


def ending(events: list[Event]) -> Ending:
    assert isinstance(events[-1], UnitEvent)
    assert sum(isinstance(event, UnitEvent) for event in events) == 1
    return events[-1].ending


def test_a_unit_becomes_its_shards_in_order_and_is_done(bench):
    events = bench.embed()
    assert ending(events) is Ending.DONE
    assert [event.name for event in shards_of(events)] == [str(name) for name in bench.names()]
    assert [(name.ordinal, name.last) for name in bench.names()] == [
        (0, False),
        (1, False),
        (2, True),
    ]
    assert bench.ids() == [str(n) for n in range(7)]
    assert bench.storage.sizes(REJECTS) == {}


def test_a_shard_holds_what_the_encoder_gave_and_its_footer_says_so(bench):
    first = shards_of(bench.embed())[0]
    footer, space = read_footer(bench.storage, bench.names()[0])
    assert footer == first.footer
    assert space == SPACE
    assert (footer.row_start, footer.row_stop, footer.documents, footer.rows) == (0, 3, 3, 3)
    assert (footer.tokens, footer.padded_tokens, footer.run_id) == (9, 18, "run-1")
    assert (footer.source, footer.version) == (str(bench.source), bench.unit.source.version)
    assert footer.provenance["model"] == "fake"
    assert first.size_bytes == bench.storage.sizes(DATA)[first.name]
    assert set(first.seconds) >= {"read", "tokenize", "encode", "write"}
    table = bench.table(first.name)
    np.testing.assert_array_equal(
        np.array(table["embedding"].to_pylist(), np.float32),
        [vector_of(text) for text in TEXTS[:3]],
    )
    assert table["text_hash"].to_pylist() == [text_hash(text) for text in TEXTS[:3]]
    assert table["char_end"].to_pylist() == [len(text) for text in TEXTS[:3]]


def test_every_wait_for_a_write_is_told_that_of_the_last_shard_with_the_units_end(bench):
    events = bench.embed()
    first, *later = shards_of(events)
    assert "write_wait" not in first.seconds
    assert all("write_wait" in event.seconds for event in later)
    assert events[-1].seconds.keys() == {"write_wait"}


def test_a_unit_that_is_complete_is_not_embedded_again(bench):
    bench.embed()
    encoder = FakeEncoder()
    bench.encoders = [encoder]
    assert [type(event) for event in bench.embed()] == [UnitEvent]
    assert encoder.forwards == []


@pytest.mark.parametrize("missing", [[2], [1, 2], [0], [1], [0, 2], [0, 1, 2]])
def test_just_the_missing_shards_are_embedded_again_and_are_the_same(bench, missing):
    bench.embed()
    names = bench.names()
    before = {name: bench.table(name) for name in names}
    for ordinal in missing:
        bench.storage.delete(f"{DATA}/{names[ordinal]}")
    events = bench.embed(a_job(bench.folder / "out", run_id="run-2"))
    assert ending(events) is Ending.DONE
    assert ordinals(events) == missing
    assert {name: bench.table(name) for name in bench.names()} == before


def test_of_a_file_that_changed_only_texts_that_it_did_not_hold_are_computed(bench):
    bench.embed()
    job = bench.job_after(bench.names())
    texts = ["a new one", *TEXTS[:2], "text number 2 as it is now", *reversed(TEXTS[3:])]
    jsonl(bench.source, texts)
    bench.encoders.append(encoder := FakeEncoder())

    events = bench.embed(job)

    assert ending(events) is Ending.DONE
    tables = [bench.table(event.name) for event in shards_of(events)]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["id"] for row in rows] == [str(n) for n in range(8)]
    assert [row["text_hash"] for row in rows] == [text_hash(text) for text in texts]
    np.testing.assert_array_equal(
        [row["embedding"] for row in rows], [vector_of(text) for text in texts]
    )
    assert encoder.forwards == [1, 1]
    footers = [event.footer for event in shards_of(events)]
    assert [footer.provenance.get(REUSED_ROWS) for footer in footers] == ["2", "2", "2"]
    assert [footer.provenance.get(REUSED_TOKENS) for footer in footers] == ["6", "6", "6"]
    assert sum(event.seconds.get("reuse", 0.0) for event in events[-4:]) > 0


def test_what_a_model_of_another_precision_computed_is_computed_again(bench):
    bench.embed()
    jsonl(bench.source, [*TEXTS, "another"])
    bench.encoders.append(encoder := FakeEncoder())
    encoder.provenance["dtype"] = "bfloat16"
    events = bench.embed(bench.job_after(bench.names()))
    assert sum(encoder.forwards) == 8
    assert all(REUSED_ROWS not in event.footer.provenance for event in shards_of(events))


def test_earlier_shards_are_read_once_for_all_of_a_unit(bench, monkeypatch):
    bench.embed()
    jsonl(bench.source, [*TEXTS, "another"])
    made = []

    class Counted(EarlierTexts):
        def __init__(self, *arguments: object, **more: object) -> None:
            made.append(arguments)
            super().__init__(*arguments, **more)

    monkeypatch.setattr(unit_embedder, "EarlierTexts", Counted)
    assert len(shards_of(bench.embed(bench.job_after(bench.names())))) == 3
    assert len(made) == 1


def test_every_row_may_be_a_shard(bench):
    events = bench.embed(a_job(bench.folder / "out", rows_per_shard=1))
    assert ending(events) is Ending.DONE
    assert ordinals(events) == list(range(7))
    assert bench.ids() == [str(n) for n in range(7)]


def test_an_empty_file_is_one_empty_shard(bench):
    jsonl(bench.source, [])
    events = bench.embed()
    assert ending(events) is Ending.DONE
    (name,) = bench.names()
    assert name.last
    assert bench.table(name).num_rows == 0
    assert bench.table(name).schema.field("embedding").type.list_size == 4
    assert [type(event) for event in bench.embed()] == [UnitEvent]


def test_vectors_may_be_stored_in_half_precision(bench):
    bench.embed(a_job(bench.folder / "out", embedding_dtype="float16"))
    column = bench.table(bench.names()[0])["embedding"]
    assert str(column.type.value_type) == "halffloat"
    np.testing.assert_array_equal(column.to_pylist()[0], vector_of(TEXTS[0]).astype(np.float16))


def test_vectors_beyond_half_precision_fail_the_unit_instead_of_becoming_infinite(bench):
    class Loud(FakeEncoder):
        def encode_tokenized(self, tokenized, roles, *, heartbeat=None):
            encoded = super().encode_tokenized(tokenized, roles, heartbeat=heartbeat)
            return replace(encoded, vectors=encoded.vectors * 1e9)

    bench.encoders.append(Loud())
    events = bench.embed(a_job(bench.folder / "out", embedding_dtype="float16"))
    assert ending(events) is Ending.FAILED
    assert "float16 holds 65504" in events[-1].message
    assert bench.names() == []


# --- Another job on the same output


def test_a_shard_that_a_rival_commits_first_is_a_duplicate_and_the_unit_ends_right(bench):
    rival = a_job(bench.folder / "out", run_id="rival")

    def be_first_from_now_on() -> None:
        deadline = time.monotonic() + 10
        while not bench.names() and time.monotonic() < deadline:  # our first is being written
            time.sleep(0.01)
        list(bench.embedder(rival).events(bench.unit))

    bench.encoders = [hooked(nothing, be_first_from_now_on)]
    events = bench.embed()
    assert ending(events) is Ending.DONE
    assert [(e.footer.ordinal, e.duplicate) for e in shards_of(events)] == [(0, False), (1, True)]
    assert bench.ids() == [str(n) for n in range(7)]
    runs = [read_footer(bench.storage, name)[0].run_id for name in bench.names()]
    assert runs == ["run-1", "rival", "rival"]


def test_what_a_rival_has_committed_is_passed_over_before_its_forward(bench):
    bench.embed(a_job(bench.folder / "out", run_id="rival"))
    first, second, third = bench.names()
    content = bench.storage.read(f"{DATA}/{second}")
    for name in (first, second, third):
        bench.storage.delete(f"{DATA}/{name}")
    encoder = hooked(lambda: bench.storage.create(f"{DATA}/{second}", content))
    bench.encoders = [encoder]
    events = bench.embed()
    assert ending(events) is Ending.DONE
    assert [(e.footer.ordinal, e.duplicate) for e in shards_of(events)] == [(0, False), (2, False)]
    assert encoder.forwards == [3, 1]
    assert bench.ids() == [str(n) for n in range(7)]


def test_before_a_shard_only_its_own_name_is_looked_for(bench, monkeypatch):
    """All those of its unit would be a LIST a thousand, for each of a hundred thousand."""
    prefixes: list[str] = []
    sizes = Storage.sizes

    def listed(self: Storage, folder: str, prefix: str = "") -> dict[str, int]:
        prefixes.append(prefix)
        return sizes(self, folder, prefix)

    monkeypatch.setattr(Storage, "sizes", listed)
    bench.embed()
    key, shards = bench.unit.key, bench.names()
    each = [f"{key}-{ordinal:05d}" for ordinal in range(len(shards))]
    assert [prefix for prefix in prefixes if prefix in each] == each
    # Where to begin, and that it is complete.
    assert prefixes.count(key) == 2


def test_jobs_at_once_leave_every_row_once_and_report_what_was_computed_twice(bench):
    jobs = [a_job(bench.folder / "out", f"run-{n}", rows_per_shard=1) for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(bench.embed, jobs))
    assert [ending(events) for events in runs] == [Ending.DONE] * 3
    assert bench.ids() == [str(n) for n in range(7)]
    ours = [e.name for events in runs for e in shards_of(events) if not e.duplicate]
    assert sorted(ours) == [str(name) for name in bench.names()]


# --- The store


def patch_create(monkeypatch, wrapper: Callable[..., bool]) -> None:
    create = Storage.create
    monkeypatch.setattr(
        Storage, "create", lambda self, name, data: wrapper(create, self, name, data)
    )


def test_a_lost_reply_to_the_commit_is_not_a_duplicate(bench, monkeypatch):
    def lose_reply(create: Callable[..., bool], *arguments: object) -> bool:
        assert create(*arguments)
        return False

    patch_create(monkeypatch, lose_reply)
    events = bench.embed()
    assert ending(events) is Ending.DONE
    assert [(e.footer.ordinal, e.duplicate) for e in shards_of(events)] == [
        (0, False),
        (1, False),
        (2, False),
    ]


def test_a_store_that_fails_interrupts_the_unit_and_what_it_had_taken_counts(bench, monkeypatch):
    def fail_second(create: Callable[..., bool], storage: Storage, name: str, data: bytes) -> bool:
        if "-00001" in name:
            raise StorageError("the store\nis full")
        return create(storage, name, data)

    patch_create(monkeypatch, fail_second)
    events = bench.embed()
    assert ending(events) is Ending.INTERRUPTED
    assert events[-1].message == "the store is full"
    assert ordinals(events) == [0]
    assert len(bench.names()) == 1


def test_a_listing_that_lacks_what_was_committed_is_found_out(bench, monkeypatch):
    monkeypatch.setattr(Storage, "sizes", lambda *_, **__: {})
    events = bench.embed()
    assert ending(events) is Ending.INTERRUPTED
    assert "does not list" in events[-1].message


def test_what_was_committed_before_a_file_is_found_damaged_counts(bench, monkeypatch):
    read = unit_embedder.documents_of

    def damaged(*arguments: object, **named: object) -> Iterator[object]:
        yield from read(*arguments, **named)
        raise UnreadableSourceError("a.jsonl: cut short")

    monkeypatch.setattr(unit_embedder, "documents_of", damaged)
    events = bench.embed()
    assert ending(events) is Ending.FAILED
    assert events[-1].message == "a.jsonl: cut short"
    assert ordinals(events) == [0, 1]
    assert len(bench.names()) == 2


# --- The source


@pytest.mark.parametrize("before_forward", [0, 1, 2])
def test_no_shard_of_a_source_that_changed_while_it_was_read_is_committed(bench, before_forward):
    planned = bench.unit

    def change() -> None:
        # At the time of a forward the write of the shard before it may still be on its way.
        deadline = time.monotonic() + 20
        while len(bench.names()) < before_forward and time.monotonic() < deadline:
            time.sleep(0.005)
        jsonl(bench.source, ["something", "else"])

    bench.encoders = [hooked(*[nothing] * before_forward, change)]
    events = list(bench.embedder().events(planned))
    assert ending(events) is Ending.CHANGED
    assert "changed since the job was planned" in events[-1].message
    assert ordinals(events) == list(range(before_forward))
    assert len(bench.names()) == before_forward


def test_a_source_that_changed_before_it_is_opened_is_not_read(bench):
    planned, encoder = bench.unit, FakeEncoder()
    bench.encoders = [encoder]
    jsonl(bench.source, ["something", "else"])
    (event,) = bench.embedder().events(planned)
    assert event.ending is Ending.CHANGED
    assert encoder.forwards == []


def test_a_file_that_was_unreadable_when_planned_is_one_reject(bench):
    unit = replace(bench.unit, kind=RangeKind.UNREADABLE, start=0, stop=0, reason="no footer")
    events = list(bench.embedder().events(unit))
    assert ending(events) is Ending.DONE
    footer = shards_of(events)[0].footer
    assert (footer.unreadable, footer.rejected, footer.documents, footer.last) == (1, 0, 0, True)
    (row,) = bench.table(bench.names()[0], REJECTS).to_pylist()
    assert (row["row"], row["reason"]) == (None, "no footer")


# --- Rejects


def test_rejects_are_written_before_the_data_and_in_the_order_of_the_source(bench, monkeypatch):
    jsonl(bench.source, ["fine", "poison", None, "also fine"])
    written: list[str] = []

    def record(create: Callable[..., bool], storage: Storage, name: str, data: bytes) -> bool:
        written.append(name)
        return create(storage, name, data)

    patch_create(monkeypatch, record)
    events = bench.embed(a_job(bench.folder / "out", rows_per_shard=10))
    (name,) = bench.names()
    assert written == [PROBE_VECTORS_FILE, f"{REJECTS}/{name}", f"{DATA}/{name}"]
    footer = shards_of(events)[0].footer
    assert (footer.documents, footer.rejected, footer.row_stop) == (2, 2, 4)
    assert sorted(shards_of(events)[0].reasons.values()) == [1, 1]
    assert shards_of(events)[0].reasons["text is null"] == 1
    rejects = bench.table(name, REJECTS).to_pylist()
    assert [(r["id"], r["row"], r["stage"]) for r in rejects] == [
        ("1", 1, "encode"),
        ("2", 2, "validate"),
    ]
    assert rejects[0]["source"] == str(bench.source)


def test_reasons_are_counted_without_the_values_of_their_rows(bench):
    rows = [{"id": value, "text": "a"} for value in ("0", 1, 2)]
    bench.source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    events = bench.embed()
    assert shards_of(events)[0].reasons == {"column 'id': expected string": 2}
    rejects = bench.table(bench.names()[0], REJECTS)["reason"].to_pylist()
    assert rejects[0] == "column 'id': expected string, found int 1"


@pytest.mark.parametrize(("first_row", "row"), [(100, 101), (None, 1)])
def test_a_reject_names_its_row_in_the_source_where_that_is_known(bench, first_row, row):
    jsonl(bench.source, ["fine", None])
    unit = replace(bench.unit, first_row=first_row)
    list(bench.embedder().events(unit))
    (reject,) = bench.table(bench.names()[0], REJECTS).to_pylist()
    assert reject["row"] == row
    assert reject["source"] == (unit.label if first_row is None else unit.source.uri)


def test_a_death_between_rejects_and_data_leaves_no_shard_and_the_next_try_ends_right(
    bench, monkeypatch
):
    jsonl(bench.source, ["fine", None])

    class Death(BaseException):
        pass

    def die_at_data(create: Callable[..., bool], storage: Storage, name: str, data: bytes) -> bool:
        if name.startswith(DATA):
            raise Death
        return create(storage, name, data)

    with monkeypatch.context() as patch:
        patch_create(patch, die_at_data)
        with pytest.raises(Death):
            bench.embed()
    assert bench.names() == []
    assert len(bench.storage.sizes(REJECTS)) == 1
    events = bench.embed()
    assert ending(events) is Ending.DONE
    (name,) = bench.names()
    assert [row["row"] for row in bench.table(name, REJECTS).to_pylist()] == [1]
    assert bench.ids() == ["0"]


def test_what_another_job_or_a_dead_try_rejected_gives_way_to_the_rejects_of_who_commits(bench):
    jsonl(bench.source, ["fine", None])
    bench.embed()
    (name,) = bench.names()
    rejects = bench.table(name, REJECTS)
    bench.storage.delete(f"{DATA}/{name}")
    bench.storage.replace(f"{REJECTS}/{name}", b"others")
    bench.embed()
    assert bench.table(name, REJECTS) == rejects


def test_who_comes_second_to_a_shard_leaves_the_rejects_of_the_first_alone(bench, monkeypatch):
    """The first has written its rejects, and commits just before the second would."""
    jsonl(bench.source, ["fine", None])
    bench.embed(a_job(bench.folder / "out", run_id="first"))
    (name,) = bench.names()
    data = bench.storage.read(f"{DATA}/{name}")
    bench.storage.delete(f"{DATA}/{name}")
    bench.storage.replace(f"{REJECTS}/{name}", b"the first one's")

    def beaten(create: Callable[..., bool], storage: Storage, path: str, own: bytes) -> bool:
        if path.startswith(DATA):
            assert create(storage, path, data)
        return create(storage, path, own)

    patch_create(monkeypatch, beaten)
    events = bench.embed(a_job(bench.folder / "out", run_id="second"))
    assert [event.duplicate for event in shards_of(events)] == [True]
    assert bench.storage.read(f"{REJECTS}/{name}") == b"the first one's"


def test_a_row_that_makes_the_model_raise_fails_the_unit_where_none_is_tolerated(bench):
    jsonl(bench.source, ["fine", "poison"])
    job = replace(a_job(bench.folder / "out"), on_invalid=OnInvalid.FAIL)
    events = bench.embed(job)
    assert ending(events) is Ending.FAILED
    assert "row 1 (id '1'): the model raised RuntimeError" in events[-1].message
    assert bench.names() == []


# --- The model, and what nobody expects


def test_a_model_of_another_space_than_the_drivers_is_a_mismatch(bench):
    bench.encoders = [FakeEncoder(replace(SPACE, max_seq_length=99))]
    (event,) = bench.embed()
    assert event.ending is Ending.MISMATCH
    assert "max_seq_length: driver 8, worker 99" in event.message
    assert bench.storage.sizes(DATA) == {}


def test_a_model_that_computes_other_vectors_than_the_corpus_first_one_is_a_mismatch(bench):
    """Of the same files: the space is the same, and only what comes out says so."""
    other = FakeEncoder()
    other.encode = lambda texts, role: FakeEncoder().encode([f"{t} {t}" for t in texts], role)
    bench.encoders = [FakeEncoder(), other]
    assert ending(bench.embed()) is Ending.DONE
    shards = bench.storage.sizes(DATA)
    jsonl(bench.source, ["changed", *TEXTS])
    (event,) = bench.embed()
    assert event.ending is Ending.MISMATCH
    assert f"wrote {bench.storage.uri}/{PROBE_VECTORS_FILE}" in event.message
    assert bench.storage.sizes(DATA) == shards


def test_a_device_that_breaks_in_the_middle_of_a_unit_commits_no_vector_of_after_it(bench):
    encoder = FakeEncoder()
    waiting = [nothing, lambda: setattr(encoder, "is_broken", True)]
    encoder.on_forward = lambda: waiting.pop(0)() if waiting else None
    bench.encoders = [encoder]
    events = bench.embed()
    assert ordinals(events) == [0]
    assert ending(events) is Ending.BROKEN
    assert "the device or its memory is broken" in events[-1].message
    assert bench.ids() == ["0", "1", "2"]

    assert ending(bench.embed()) is Ending.DONE, "another worker"
    assert bench.ids() == [str(n) for n in range(7)]


def test_a_device_that_fails_at_the_probe_texts_breaks_its_worker(bench):
    broken = FakeEncoder()

    def lost(*_: object) -> None:
        raise RuntimeError("device lost")

    broken.encode = lost
    bench.encoders = [broken]
    (event,) = bench.embed()
    assert (event.ending, event.message) == (
        Ending.BROKEN,
        "the model does not load here: device lost",
    )


def test_the_probe_texts_have_the_deadline_of_a_forward(bench, monkeypatch):
    deadlines: list[float] = []

    @contextmanager
    def record(seconds: float) -> Iterator[None]:
        deadlines.append(seconds)
        yield
        deadlines.append(0)

    encoder = FakeEncoder()
    encoder.encode = lambda texts, role: (seen.append(deadlines[-1]), whole(texts, role))[1]
    seen, whole = [], FakeEncoder().encode
    monkeypatch.setattr(unit_embedder, "deadline", record)
    bench.encoders = [encoder]
    assert ending(bench.embed()) is Ending.DONE
    assert set(seen) == {60.0}


def test_a_model_that_does_not_load_is_fatal(bench, monkeypatch):
    def broken(_: EncoderSettings) -> Encoder:
        raise ModelLoadError("no such\nmodel")

    monkeypatch.setattr(unit_embedder, "load_encoder", broken)
    (event,) = bench.embed()
    assert (event.ending, event.message) == (Ending.FATAL, "no such model")


def test_a_worker_without_a_model_takes_its_time_before_it_fails_the_next_unit(bench, monkeypatch):
    """The others are yet loading; each unit that it fails has two tries left."""
    waited: list[float] = []
    answers: list[Exception | None] = [ModelLoadError("503"), None]

    def load(_: EncoderSettings) -> Encoder:
        if answer := answers.pop(0):
            raise answer
        return FakeEncoder()

    monkeypatch.setattr(unit_embedder, "load_encoder", load)
    monkeypatch.setattr(time, "sleep", waited.append)
    embedder = bench.embedder()
    assert ending(list(embedder.events(bench.unit))) is Ending.FATAL
    assert waited == []
    assert ending(list(embedder.events(bench.unit))) is Ending.DONE
    assert waited == [30]


def test_a_store_that_refuses_a_worker_that_has_its_model_is_asked_again_at_once(
    bench, monkeypatch
):
    waited: list[float] = []
    answers: list[Exception | None] = [StorageError("403"), None]
    agree = unit_embedder.agree_on_probe_vectors

    def refuse_once(*given: object) -> object:
        if answer := answers.pop(0):
            raise answer
        return agree(*given)

    monkeypatch.setattr(unit_embedder, "load_encoder", lambda _: FakeEncoder())
    monkeypatch.setattr(unit_embedder, "agree_on_probe_vectors", refuse_once)
    monkeypatch.setattr(time, "sleep", waited.append)
    embedder = bench.embedder()
    assert ending(list(embedder.events(bench.unit))) is Ending.INTERRUPTED
    assert ending(list(embedder.events(bench.unit))) is Ending.DONE
    assert waited == []


def test_what_nobody_expects_fails_the_unit_in_one_line_that_names_it(bench, monkeypatch):
    def broken(*_: object, **__: object) -> Iterator[object]:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(unit_embedder, "documents_of", broken)
    (event,) = bench.embed()
    assert event.ending is Ending.FAILED
    assert event.message == f"{bench.unit.label}: ZeroDivisionError: by zero"


def test_an_embedder_loads_its_model_once_for_units_at_once(bench, monkeypatch):
    loads: list[FakeEncoder] = []

    def load(_: EncoderSettings) -> FakeEncoder:
        loads.append(FakeEncoder())
        return loads[-1]

    monkeypatch.setattr(unit_embedder, "load_encoder", load)
    for name in "bcd":
        jsonl(bench.folder / f"{name}.jsonl", TEXTS)
    units = [units_of(bench.folder / f"{name}.jsonl")[0] for name in "abcd"]
    embedder = bench.embedder()
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda unit: list(embedder.events(unit)), units))
    assert [ending(events) for events in runs] == [Ending.DONE] * 4
    assert len(loads) == 1
    assert sorted(bench.ids()) == sorted([str(n) for n in range(7)] * 4)


def test_events_travel_as_rows_of_two_strings(bench):
    jsonl(bench.source, [*TEXTS[:6], None])
    batch = {"unit": np.array([bench.unit.to_json()], dtype=object)}
    rows = list(bench.embedder()(batch))
    assert all(set(row) == {"kind", "body"} for row in rows)
    events = [event_from_row({name: values[0] for name, values in row.items()}) for row in rows]
    assert events[0] == BeginEvent(bench.unit.key, f"{socket.gethostname()}:{os.getpid()}")
    assert ordinals(events) == [0, 1, 2]
    assert ending(events) is Ending.DONE
    assert events[1].footer == read_footer(bench.storage, bench.names()[0])[0]
    assert events[3].reasons == {"text is null": 1}


@pytest.mark.parametrize("is_older", [False, True])
def test_a_worker_of_another_version_than_the_drivers_says_so_before_it_reads_a_unit(
    bench, is_older
):
    """Whose settings it would ignore, and whose units it could not read."""
    other = {"version": "0.2.0 (code 12345678)", "code": "12345678"}
    job = replace(a_job(bench.folder / "out"), **other)
    if is_older:  # than the check: pickled without the fields
        for name in other:
            object.__delattr__(job, name)
    (row,) = bench.embedder(job)({"unit": np.array(['{"of": "another version"}'], dtype=object)})
    event = event_from_row({name: values[0] for name, values in row.items()})
    assert event.ending is Ending.MISMATCH
    assert f"({'an older one' if is_older else '0.2.0 (code 12345678)'}) on " in event.message
    assert f"found {twofold_version()}" in event.message


def test_what_is_installed_on_a_worker_is_no_matter_where_the_same_code_runs(bench):
    """`--working-dir` hides it."""
    job = replace(a_job(bench.folder / "out"), version=f"9.9.9 (code {code_digest()})")
    rows = bench.embedder(job)({"unit": np.array([bench.unit.to_json()], dtype=object)})
    events = [event_from_row({name: values[0] for name, values in row.items()}) for row in rows]
    assert ending(events) is Ending.DONE


def test_a_real_model_embeds_a_unit(tmp_path, tiny_model):
    from encoder.encoder import load_encoder

    settings = EncoderSettings(model=str(tiny_model), backend=BackendName.TORCH)
    encoder = load_encoder(settings)
    path = jsonl(tmp_path / "a.jsonl", TEXTS)
    job = a_job(tmp_path / "out")
    job = replace(job, encoder=settings, pin=replace(job.pin, space=encoder.space))
    events = list(UnitEmbedder(job).events(units_of(path)[0]))
    assert ending(events) is Ending.DONE
    content = Storage(job.output).read(f"{DATA}/{shards_of(events)[0].name}")
    vectors = np.array(pq.read_table(io.BytesIO(content))["embedding"].to_pylist())
    expected = encoder.encode_documents(TEXTS[:3])
    np.testing.assert_allclose(vectors, expected, atol=1e-3)


def test_the_message_of_an_ending_is_not_as_large_as_an_error(bench, monkeypatch):
    def broken(unit: WorkUnit, *_: object, **__: object) -> Iterator[None]:
        raise UnreadableSourceError(f"{unit.label}: " + "name " * 10**6)

    monkeypatch.setattr(unit_embedder, "documents_of", broken)
    event = bench.embed()[-1]
    assert event.message.startswith(f"{bench.unit.label}: name name")
    assert len(event.message) == 2000
