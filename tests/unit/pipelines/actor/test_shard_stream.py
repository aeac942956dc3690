"""A unit as a stream: cut into shards by the source alone, under the policy for bad input."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import InvalidInputError
from encoder.tokenizer import Tokenized
from pipelines.actor import shard_stream
from pipelines.actor.prepare import PreparedBatch
from pipelines.actor.shard_stream import check_version, cut_into_shards, documents_of
from pipelines.errors import SourceChangedError, UnreadableSourceError
from pipelines.settings import OnInvalid
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.documents import DocumentBatch, Reject
from pipelines.source.units import WorkUnit
from support.corpora import CARRIED, jsonl, units_of

COLUMNS = CorpusColumns("id", ("text",), CARRIED)

# Of each source row the number of its chunks; 0 stands for a row that was rejected.
sources = st.lists(st.integers(0, 5), max_size=40)
shard_sizes = st.integers(1, 8)
no_deadline = settings(deadline=None)  # the machine may be shared


def prepared(chunks: Sequence[int], start: int) -> PreparedBatch:
    rows = np.repeat(np.arange(start, start + len(chunks)), chunks)
    count = len(rows)
    return PreparedBatch(
        row_start=start,
        row_stop=start + len(chunks),
        rows=rows,
        chunk_index=np.zeros(count, np.int32),
        char_start=np.zeros(count, np.int64),
        char_end=np.zeros(count, np.int64),
        hashes=[b""] * count,
        tokenized=Tokenized(
            [np.array([row], np.int32) for row in rows], np.ones(count, np.int32), rows < 0
        ),
        carried=pa.RecordBatch.from_arrays([pa.array(map(str, rows), pa.string())], schema=CARRIED),
        rejects=[
            Reject(None, start + n, "bad", "validate") for n, many in enumerate(chunks) if not many
        ],
    )


def in_batches(chunks: Sequence[int], cuts: Sequence[int], start: int = 0) -> list[PreparedBatch]:
    """Cut a source at some rows; a row that is named twice makes an empty batch there."""
    edges = sorted([0, len(chunks), *(min(cut, len(chunks)) for cut in cuts)])
    return [prepared(chunks[low:high], start + low) for low, high in pairwise(edges)]


def shards_of(
    batches: Sequence[PreparedBatch], rows_per_shard: int, row_start: int = 0
) -> list[tuple[PreparedBatch, bool]]:
    return list(
        cut_into_shards(
            batches, rows_per_shard=rows_per_shard, row_start=row_start, carried=CARRIED
        )
    )


def summary(shards: Sequence[tuple[PreparedBatch, bool]]) -> list[tuple[object, ...]]:
    return [
        (shard.row_start, shard.row_stop, shard.rows.tolist(), len(shard.rejects), last)
        for shard, last in shards
    ]


@no_deadline
@given(chunks=sources, cuts=st.lists(st.integers(0, 40)), size=shard_sizes)
def test_shards_cover_every_source_row_once_within_their_size(chunks, cuts, size):
    shards = shards_of(in_batches(chunks, cuts), size)
    assert [last for _, last in shards] == [False] * (len(shards) - 1) + [True]
    row = 0
    for shard, _ in shards:
        assert shard.row_start == row
        row = shard.row_stop
        weight = int(shard.weights.sum())
        assert weight <= size or shard.row_stop - shard.row_start == 1
        assert len(shard.rows) == len(shard.carried) == len(shard.tokenized) == len(shard.hashes)
        assert shard.carried["id"].to_pylist() == [str(row) for row in shard.rows]
        assert [int(ids[0]) for ids in shard.tokenized.input_ids] == shard.rows.tolist()
    assert row == len(chunks)
    embedded = [int(row) for shard, _ in shards for row in shard.rows]
    assert embedded == np.repeat(np.arange(len(chunks)), chunks).tolist()
    rejected = [reject.row for shard, _ in shards for reject in shard.rejects]
    assert rejected == [row for row, many in enumerate(chunks) if not many]


@no_deadline
@given(chunks=sources, size=shard_sizes)
def test_no_shard_but_the_last_has_room_for_the_row_after_it(chunks, size):
    shards = shards_of(in_batches(chunks, [7, 20]), size)
    for shard, last in shards:
        if not last:
            assert int(shard.weights.sum()) + max(chunks[shard.row_stop], 1) > size
            assert shard.row_stop > shard.row_start


@no_deadline
@given(chunks=sources, cuts=st.lists(st.integers(0, 40)), size=shard_sizes)
def test_the_shards_do_not_depend_on_how_the_source_was_read(chunks, cuts, size):
    at_once = shards_of([prepared(chunks, 0)], size)
    assert summary(shards_of(in_batches(chunks, cuts), size)) == summary(at_once)


@no_deadline
@given(data=st.data(), chunks=sources, cuts=st.lists(st.integers(0, 40)), size=shard_sizes)
def test_going_on_after_any_shard_gives_the_same_remaining_shards(data, chunks, cuts, size):
    whole = summary(shards_of([prepared(chunks, 0)], size))
    done = data.draw(st.integers(0, len(whole) - 1))
    row = int(str(whole[done][0]))
    rest = shards_of(in_batches(chunks[row:], cuts, start=row), size, row_start=row)
    assert summary(rest) == whole[done:]


def test_a_unit_without_rows_is_one_empty_shard_that_says_where_it_stands():
    ((shard, last),) = shards_of([], 3, row_start=6)
    assert last
    assert (shard.row_start, shard.row_stop, len(shard.rows)) == (6, 6, 0)
    assert shard.carried.schema == CARRIED


def test_what_could_not_be_read_is_a_reject_of_the_last_shard():
    rest = prepared([], 2)
    rest.rejects.append(Reject(None, None, "broken", "read"))
    shards = shards_of([prepared([1, 1], 0), rest], 2)
    assert summary(shards) == [(0, 2, [0, 1], 1, True)]


# --- The policy for bad input


def a_batch(start: int, texts: Sequence[str | None]) -> DocumentBatch:
    rows = [start + n for n, text in enumerate(texts) if text is not None]
    return DocumentBatch(
        row_start=start,
        row_stop=start + len(texts),
        texts=[text for text in texts if text is not None],
        rows=rows,
        carried=pa.RecordBatch.from_pylist([{"id": str(row)} for row in rows], CARRIED),
        rejects=[
            Reject("7", start + n, "text is null", "validate")
            for n, text in enumerate(texts)
            if text is None
        ],
    )


@pytest.fixture
def unit(tmp_path) -> WorkUnit:
    return units_of(jsonl(tmp_path / "a.jsonl", ["x"]))[0]


@pytest.fixture
def breaks_after(monkeypatch):
    """Let reading yield some batches and then find the file damaged."""

    def arrange(*batches: DocumentBatch) -> None:
        def read(*_: object, **__: object) -> Iterator[DocumentBatch]:
            yield from batches
            raise UnreadableSourceError("a.jsonl: cut short")

        monkeypatch.setattr(shard_stream, "read_documents", read)

    return arrange


def documents(
    unit: WorkUnit, on_invalid: OnInvalid | None, skip_rows: int = 0
) -> Iterator[DocumentBatch]:
    return documents_of(unit, COLUMNS, skip_rows=skip_rows, on_invalid=on_invalid)


@pytest.mark.parametrize("on_invalid", [None, OnInvalid.REJECT])
def test_a_bad_row_is_passed_on_as_a_reject(tmp_path, on_invalid):
    (unit,) = units_of(jsonl(tmp_path / "a.jsonl", ["x", None, "y"]))
    (batch,) = documents(unit, on_invalid)
    assert batch.texts == ["x", "y"]
    assert [reject.row for reject in batch.rejects] == [1]


def test_the_first_bad_row_fails_where_none_is_tolerated(tmp_path):
    (unit,) = units_of(jsonl(tmp_path / "a.jsonl", ["x", None, "y"]))
    with pytest.raises(InvalidInputError, match=r"a\.jsonl.* row 1 \(id '1'\): text is null"):
        list(documents(unit, OnInvalid.FAIL))


@pytest.mark.parametrize("on_invalid", [None, OnInvalid.FAIL])
def test_a_damaged_file_fails_after_what_stands_before_the_damage(unit, breaks_after, on_invalid):
    breaks_after(a_batch(0, ["x", "y"]))
    found = documents(unit, on_invalid)
    assert next(found).texts == ["x", "y"]
    with pytest.raises(UnreadableSourceError, match="cut short"):
        next(found)


def test_the_rest_of_a_damaged_file_is_one_reject_where_that_is_tolerated(unit, breaks_after):
    breaks_after(a_batch(4, ["x", None]))
    first, rest = documents(unit, OnInvalid.REJECT, skip_rows=4)
    assert first.row_stop == 6
    assert (rest.row_start, rest.row_stop, rest.texts) == (6, 6, [])
    assert rest.carried.schema == CARRIED
    assert rest.rejects == [Reject(None, None, "a.jsonl: cut short", "read")]


def test_damage_before_the_first_row_stands_where_reading_began(unit, breaks_after):
    breaks_after()
    (rest,) = documents(unit, OnInvalid.REJECT, skip_rows=4)
    assert (rest.row_start, rest.row_stop) == (4, 4)


@pytest.mark.parametrize("on_invalid", [None, *OnInvalid])
def test_damage_in_a_source_that_is_being_replaced_is_a_change(unit, breaks_after, on_invalid):
    breaks_after(a_batch(0, ["x"]))
    found = documents(unit, on_invalid)
    next(found)
    jsonl(Path(unit.source.uri), ["another", "one"])
    with pytest.raises(SourceChangedError, match="changed since the job was planned"):
        next(found)


def test_a_gzip_that_is_cut_short_gives_its_rows_and_one_reject(tmp_path):
    lines = [json.dumps({"id": str(n), "text": os.urandom(50).hex()}) for n in range(500)]
    whole = gzip.compress("\n".join(lines).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (unit,) = units_of(tmp_path / "a.jsonl.gz")
    batches = list(documents(unit, OnInvalid.REJECT))
    assert 100 < sum(len(batch.texts) for batch in batches) < 400
    assert [r.row for batch in batches for r in batch.rejects] == [None]


def test_a_source_that_is_gone_is_a_change(unit):
    check_version(unit.source)
    Path(unit.source.uri).unlink()
    with pytest.raises(SourceChangedError, match="is gone since the job was planned"):
        check_version(unit.source)
