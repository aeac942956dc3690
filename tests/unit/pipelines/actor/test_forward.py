"""The forward of a shard: bad rows alone are rejected, a broken backend rejects nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.encoder import EncodedVectors
from encoder.errors import BackendError
from encoder.probe_vectors import ProbeVectors
from encoder.space import Role
from encoder.tokenizer import Tokenized
from pipelines.actor.canaries import Canaries
from pipelines.actor.forward import Forward
from pipelines.actor.prepare import LongTexts, PreparedBatch, prepare
from pipelines.corpus.earlier_texts import FoundVectors
from pipelines.settings import OnLong
from pipelines.source.documents import DocumentBatch
from support.corpora import CARRIED
from support.fake_encoder import FakeEncoder, vector_of

REPOSITORY = Path(__file__).resolve().parents[4]
BAD = "this text is poison"


def prepared(texts: Sequence[str], policy: OnLong = OnLong.TRUNCATE) -> PreparedBatch:
    rows = list(range(len(texts)))
    carried = pa.RecordBatch.from_pylist([{"id": f"doc {row}"} for row in rows], CARRIED)
    batch = DocumentBatch(0, len(texts), list(texts), rows, carried, [])
    return prepare(batch, FakeEncoder(), Role.DOCUMENT, LongTexts(policy))


def forward_of(encoder: FakeEncoder, batch_timeout_s: float = 60.0) -> Forward:
    canaries = Canaries(encoder, ProbeVectors.of(encoder), Role.DOCUMENT)
    return Forward(encoder, Role.DOCUMENT, canaries, batch_timeout_s=batch_timeout_s)


def test_rows_get_their_vectors_in_order_in_one_call():
    encoder, texts = FakeEncoder(), ["one", "two words", "three"]
    embedded = forward_of(encoder).embed(prepared(texts))
    np.testing.assert_array_equal(embedded.vectors, [vector_of(text) for text in texts])
    assert embedded.padded_tokens == 8
    assert encoder.forwards == [3]


def test_the_wait_for_another_units_forward_is_not_its_own_time():
    encoder = FakeEncoder()
    forward, batch = forward_of(encoder), prepared(["one"])
    encode, begun = encoder.encode_tokenized, threading.Event()

    def slow(*arguments: object, **options: object) -> EncodedVectors:
        if not begun.is_set():
            begun.set()
            time.sleep(0.3)
        return encode(*arguments, **options)

    encoder.encode_tokenized = slow
    with ThreadPoolExecutor() as threads:
        first = threads.submit(forward.embed, batch)
        assert begun.wait(5)  # the first one holds the lock
        second = threads.submit(forward.embed, batch)
        assert first.result().seconds >= 0.3
        assert second.result().seconds < 0.3


def test_a_shard_without_rows_has_no_vectors():
    embedded = forward_of(FakeEncoder()).embed(prepared([]))
    assert embedded.vectors.shape == (0, 4)
    assert embedded.batch.rejects == []


@settings(deadline=None, max_examples=50)
@given(st.lists(st.booleans(), max_size=30))
def test_just_the_rows_that_raise_are_rejected_and_the_others_keep_their_vectors(bad):
    texts = [BAD if is_bad else f"text {'x ' * (n % 5)}{n}" for n, is_bad in enumerate(bad)]
    embedded = forward_of(FakeEncoder()).embed(prepared(texts))
    kept = [n for n, is_bad in enumerate(bad) if not is_bad]
    assert embedded.batch.rows.tolist() == kept
    assert embedded.batch.carried["id"].to_pylist() == [f"doc {n}" for n in kept]
    assert len(embedded.vectors) == len(kept)
    for n, vector in zip(kept, embedded.vectors, strict=True):
        np.testing.assert_array_equal(vector, vector_of(texts[n]))
    assert {(reject.row, reject.id, reject.stage) for reject in embedded.batch.rejects} == {
        (n, f"doc {n}", "encode") for n, is_bad in enumerate(bad) if is_bad
    }
    assert (embedded.batch.row_start, embedded.batch.row_stop) == (0, len(bad))


def test_a_text_that_several_rows_have_is_computed_once():
    encoder, texts = FakeEncoder(), ["one", "two words", "one", "one", "two words"]
    embedded = forward_of(encoder).embed(prepared(texts))
    np.testing.assert_array_equal(embedded.vectors, [vector_of(text) for text in texts])
    assert encoder.forwards == [2]
    assert (embedded.reused_rows, embedded.reused_tokens) == (3, 1 + 1 + 2)


def test_what_was_found_is_not_computed():
    encoder, texts = FakeEncoder(), ["one", "two words", "three"]
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4)
    embedded = forward_of(encoder).embed(prepared(texts), FoundVectors(np.array([0, 2]), vectors))
    np.testing.assert_array_equal(
        embedded.vectors, [vectors[0], vector_of("two words"), vectors[1]]
    )
    assert encoder.forwards == [1]
    assert (embedded.reused_rows, embedded.reused_tokens) == (2, 2)


def test_where_all_was_found_there_is_no_forward():
    encoder = FakeEncoder()
    found = FoundVectors(np.array([0, 1]), np.ones((2, 4), np.float32))
    embedded = forward_of(encoder).embed(prepared(["one", "two words"]), found)
    assert embedded.vectors.tolist() == [[1.0] * 4] * 2
    assert encoder.forwards == []
    assert embedded.padded_tokens == 0
    assert (embedded.reused_rows, embedded.reused_tokens) == (2, 3)


@settings(deadline=None, max_examples=100)
@given(
    chosen=st.lists(st.integers(0, 7), max_size=20),
    bad=st.sets(st.integers(0, 3)),
    data=st.data(),
)
def test_rows_are_right_whichever_are_equal_found_or_raise(chosen, bad, data):
    texts = [f"{n} {BAD}" if n in bad else f"text {n}" for n in chosen]
    good = [at for at, n in enumerate(chosen) if n not in bad]
    there = sorted(data.draw(st.sets(st.sampled_from(good))) if good else ())
    given_vectors = np.array([vector_of(texts[at]) for at in there], np.float32).reshape(-1, 4)
    encoder = FakeEncoder()
    embedded = forward_of(encoder).embed(
        prepared(texts), FoundVectors(np.array(there, np.int64), given_vectors)
    )
    assert embedded.batch.rows.tolist() == good
    np.testing.assert_array_equal(
        embedded.vectors, np.array([vector_of(texts[at]) for at in good]).reshape(-1, 4)
    )
    assert [reject.row for reject in embedded.batch.rejects] == [
        at for at, n in enumerate(chosen) if n in bad
    ]
    computed = {chosen[at] for at in good if at not in there}
    assert embedded.reused_rows == len(good) - len(computed)
    assert embedded.reused_tokens == 2 * embedded.reused_rows


def test_the_reason_is_the_error_in_one_line():
    embedded = forward_of(FakeEncoder()).embed(prepared([BAD]))
    (reject,) = embedded.batch.rejects
    assert reject.reason == "the model raised RuntimeError: a kernel said no and more lines"


def test_finding_one_bad_row_takes_few_forwards():
    encoder = FakeEncoder()
    forward_of(encoder).embed(prepared([*(f"text {n}" for n in range(1023)), BAD]))
    assert len(encoder.forwards) < 2 * 10 + 5


def test_all_chunks_of_a_document_go_when_one_of_them_raises():
    long = " ".join([*(f"w{n}" for n in range(10)), "poison", "poison"])
    texts = ["before", long, "after"]
    embedded = forward_of(FakeEncoder()).embed(prepared(texts, OnLong.CHUNK))
    assert embedded.batch.rows.tolist() == [0, 2]
    np.testing.assert_array_equal(embedded.vectors, [vector_of("before"), vector_of("after")])
    assert [(reject.row, reject.id) for reject in embedded.batch.rejects] == [(1, "doc 1")]


def test_a_backend_that_fails_for_every_text_rejects_nothing():
    encoder = FakeEncoder()

    def broken() -> None:
        raise RuntimeError("device lost\nat line 3")

    encoder.on_forward = broken
    with pytest.raises(BackendError, match=r"fails for every text \(RuntimeError: device lost at"):
        forward_of(encoder).embed(prepared([f"text {n}" for n in range(64)]))
    assert len(encoder.forwards) < 12, "every text was tried"


def test_a_backend_that_fails_once_loses_no_row():
    encoder, failures = FakeEncoder(), [True]

    def flaky() -> None:
        if failures and failures.pop():
            raise RuntimeError("out of memory")

    encoder.on_forward = flaky
    embedded = forward_of(encoder).embed(prepared(["a", "b", "c"]))
    np.testing.assert_array_equal(embedded.vectors, [vector_of(text) for text in "abc"])
    assert embedded.batch.rejects == []


def test_a_device_that_begins_to_give_other_vectors_gives_none():
    encoder = FakeEncoder()
    forward = forward_of(encoder)
    forward.embed(prepared(["before"]))
    encoder.is_broken = True
    with pytest.raises(BackendError, match=r"when the model was loaded, found another: 'jobs' as"):
        forward.embed(prepared(["after"]))


def test_a_device_on_which_a_known_text_begins_to_raise_gives_no_vectors():
    encoder = FakeEncoder()
    forward = forward_of(encoder)
    encode, known = encoder.encode_tokenized, encoder.tokenize(["jobs"], Role.DOCUMENT)

    def raising(tokenized: Tokenized, *given: object, **options: object) -> EncodedVectors:
        if any(np.array_equal(ids, known.input_ids[0]) for ids in tokenized.input_ids):
            raise RuntimeError("a row is gone")
        return encode(tokenized, *given, **options)

    encoder.encode_tokenized = raising
    with pytest.raises(BackendError, match="found that 'jobs' raises RuntimeError: a row is gone"):
        forward.embed(prepared(["a", "b"]))


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (100, 1), (101, 2), (5_000, 9)])
def test_a_shard_has_a_known_text_for_every_hundred_rows(rows: int, count: int):
    encoder = FakeEncoder()
    forward, texts = forward_of(encoder), []
    encode = encoder.encode_tokenized

    def counting(tokenized: Tokenized, *given: object, **options: object) -> EncodedVectors:
        texts.append(len(tokenized))
        return encode(tokenized, *given, **options)

    encoder.encode_tokenized = counting
    embedded = forward.embed(prepared([f"text {n}" for n in range(rows)]))
    assert texts == [rows + count]
    assert embedded.vectors.shape == (rows, 4)
    assert embedded.padded_tokens == 4 * rows, "the known texts are not the shard's"


HANGS = """
import time
from support.fake_encoder import FakeEncoder
from test_forward import forward_of, prepared

encoder = FakeEncoder()
encoder.on_forward = lambda: time.sleep({sleep_s})
forward = forward_of(encoder, {timeout_s})
for _ in range(2):
    forward.embed(prepared(["a"]))
    time.sleep({idle_s})
print("came back")
"""


def run(**seconds: float) -> subprocess.CompletedProcess[str]:
    paths = [REPOSITORY, REPOSITORY / "tests", Path(__file__).parent]
    return subprocess.run(
        [sys.executable, "-c", HANGS.format(**seconds)],
        env={"PYTHONPATH": ":".join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_forward_beyond_its_deadline_ends_the_process_with_a_traceback():
    ended = run(sleep_s=60, timeout_s=0.5, idle_s=0)
    assert ended.returncode != 0
    assert "Timeout" in ended.stderr
    assert "encode_tokenized" in ended.stderr
    assert "came back" not in ended.stdout


def test_time_between_forwards_does_not_count_against_the_deadline():
    ended = run(sleep_s=0, timeout_s=1, idle_s=1.5)
    assert ended.returncode == 0
    assert "came back" in ended.stdout


def test_the_deadline_starts_anew_with_every_finished_batch(monkeypatch):
    calls: list[str] = []

    class Watchdog:
        @staticmethod
        def dump_traceback_later(timeout_s: float, *, exit: bool, file: int) -> None:
            calls.append(f"{timeout_s:g} s, exit {exit}")

        @staticmethod
        def cancel_dump_traceback_later() -> None:
            calls.append("cancel")

    monkeypatch.setattr("pipelines.actor.forward.faulthandler", Watchdog)
    forward_of(FakeEncoder()).embed(prepared(["a"]))
    assert calls == ["60 s, exit True", "60 s, exit True", "cancel"]


def test_a_row_that_fails_for_a_passing_reason_is_not_rejected():
    class Flaky(FakeEncoder):
        failed = 2

        def encode_tokenized(self, tokenized, roles, *, heartbeat=None):
            if self.failed < 2:
                self.failed += 1
                raise RuntimeError("out of memory for once")
            return super().encode_tokenized(tokenized, roles, heartbeat=heartbeat)

    encoder = Flaky()
    forward = forward_of(encoder)
    encoder.failed = 0
    embedded = forward.embed(prepared(["one"]))
    assert embedded.batch.rejects == []
    np.testing.assert_array_equal(embedded.vectors, [vector_of("one")])
