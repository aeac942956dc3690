"""From documents to rows for the forward: long texts, offsets, hashes, cuts between source rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from encoder.encoder import load_encoder
from encoder.settings import BackendName, EncoderSettings
from encoder.space import Pooling, Role, RoleEncoding
from pipelines.actor.prepare import LongTexts, PreparedBatch, concatenate, prepare, text_hash
from pipelines.settings import OnLong
from pipelines.source.documents import DocumentBatch, Reject
from support.corpora import CARRIED
from support.fake_encoder import SPACE, FakeEncoder

SHORT = "three short words"
LONG = " ".join(f"w{n}" for n in range(20))


def batch_of(texts: Sequence[str | None], start: int = 0) -> DocumentBatch:
    """Return a batch in which None stands for a row that was rejected before."""
    rows = [start + n for n, text in enumerate(texts) if text is not None]
    return DocumentBatch(
        row_start=start,
        row_stop=start + len(texts),
        texts=[text for text in texts if text is not None],
        rows=rows,
        carried=pa.RecordBatch.from_pylist([{"id": f"doc {row}"} for row in rows], CARRIED),
        rejects=[
            Reject(None, start + n, "text is null", "validate")
            for n, text in enumerate(texts)
            if text is None
        ],
    )


def prepared(
    texts: Sequence[str | None], policy: OnLong = OnLong.TRUNCATE, start: int = 0
) -> PreparedBatch:
    return prepare(batch_of(texts, start), FakeEncoder(), Role.DOCUMENT, LongTexts(policy))


def tokens(batch: PreparedBatch) -> list[list[int]]:
    return [ids.tolist() for ids in batch.tokenized.input_ids]


def test_texts_that_fit_are_one_row_each_with_their_whole_span():
    batch = prepared([SHORT, None, "x"], start=5)
    assert batch.rows.tolist() == [5, 7]
    assert batch.chunk_index.tolist() == [0, 0]
    assert batch.char_start.tolist() == [0, 0]
    assert batch.char_end.tolist() == [len(SHORT), 1]
    assert batch.carried["id"].to_pylist() == ["doc 5", "doc 7"]
    assert batch.hashes == [text_hash(SHORT), text_hash("x")]
    assert [reject.row for reject in batch.rejects] == [6]
    assert batch.weights.tolist() == [1, 1, 1]


def test_a_long_text_is_truncated_and_says_so():
    batch = prepared([SHORT, LONG])
    assert batch.tokenized.truncated.tolist() == [False, True]
    assert batch.tokenized.n_tokens.tolist() == [3, 8]
    assert batch.char_end.tolist() == [len(SHORT), len(LONG)]


def test_a_long_text_is_cut_into_chunks_between_its_neighbours():
    batch = prepared([SHORT, LONG, None, "x"], OnLong.CHUNK)
    assert batch.rows.tolist() == [0, 1, 1, 1, 3]
    assert batch.chunk_index.tolist() == [0, 0, 1, 2, 0]
    assert batch.weights.tolist() == [1, 3, 1, 1]
    assert batch.carried["id"].to_pylist() == ["doc 0", "doc 1", "doc 1", "doc 1", "doc 3"]
    spans = list(zip(batch.char_start.tolist(), batch.char_end.tolist(), strict=True))
    texts = [SHORT, *(LONG[start:end] for start, end in spans[1:4]), "x"]
    assert " ".join(texts[1:4]) == LONG
    assert batch.hashes == [text_hash(text) for text in texts]
    assert tokens(batch) == tokens(prepared(texts))
    assert not batch.tokenized.truncated.any()


@pytest.mark.parametrize("long_ones", [[0], [1], [2], [0, 1, 2], [0, 2]])
def test_a_long_text_is_rejected_with_its_id_wherever_it_stands(long_ones):
    texts = [LONG if n in long_ones else f"text {n}" for n in range(3)]
    batch = prepared(texts, OnLong.REJECT)
    kept = [n for n in range(3) if n not in long_ones]
    assert batch.rows.tolist() == kept
    assert tokens(batch) == tokens(prepared([f"text {n}" for n in kept]))
    assert [(r.row, r.id, r.stage) for r in batch.rejects] == [
        (n, f"doc {n}", "chunk") for n in long_ones
    ]
    assert "longer than max_seq_length (8 tokens)" in batch.rejects[0].reason


def test_an_id_in_bytes_is_rejected_as_text():
    batch = batch_of([LONG])
    carried = pa.RecordBatch.from_pylist([{"id": b"\xffkey"}], pa.schema([("id", pa.binary())]))
    found = prepare(
        replace(batch, carried=carried), FakeEncoder(), Role.DOCUMENT, LongTexts(OnLong.REJECT)
    )
    assert found.rejects[0].id == "\\xffkey"


def test_the_hash_is_of_the_text_that_the_tokenizer_gets_prompt_included():
    space = replace(SPACE, query=RoleEncoding(Pooling.MEAN, "query: "))
    encoder = FakeEncoder(space)
    batch = prepare(batch_of(["é x"]), encoder, Role.QUERY, LongTexts(OnLong.TRUNCATE))
    assert batch.hashes == [hashlib.blake2b("query: é x".encode(), digest_size=16).digest()]


def test_a_batch_of_only_rejects_weighs_a_row_each():
    batch = prepared([None, None], start=3)
    assert len(batch.rows) == 0
    assert batch.weights.tolist() == [1, 1]
    assert prepared([]).weights.tolist() == []


def test_cuts_put_together_again_are_the_batch():
    whole = prepared([SHORT, LONG, None, "x", "y"], OnLong.CHUNK, start=10)
    parts = [whole.cut(10, 11), whole.cut(11, 13), whole.cut(13, 15)]
    assert [len(part.rows) for part in parts] == [1, 3, 2]
    assert [len(part.rejects) for part in parts] == [0, 1, 0]
    again = concatenate(parts)
    assert (again.row_start, again.row_stop) == (10, 15)
    for name in ("rows", "chunk_index", "char_start", "char_end"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert again.hashes == whole.hashes
    assert tokens(again) == tokens(whole)
    assert again.carried.equals(whole.carried)
    assert again.rejects == whole.rejects


def test_empty_parts_leave_the_schema_of_the_rest():
    both = concatenate([prepared([None]), prepared([None], start=1)])
    assert both.carried.schema == CARRIED
    assert [reject.row for reject in both.rejects] == [0, 1]


def test_a_row_that_is_taken_out_goes_with_all_its_chunks():
    whole = prepared([SHORT, LONG, "x"], OnLong.CHUNK)
    bad = Reject("doc 1", 1, "the model raised", "encode")
    left = whole.without([2], [bad])
    assert left.rows.tolist() == [0, 2]
    assert left.rejects == [bad]
    assert (left.row_start, left.row_stop) == (0, 3)
    assert tokens(left) == tokens(prepared([SHORT, "x"]))


def test_chunks_of_a_real_tokenizer_cover_the_text_and_fit(tiny_model):
    text = "Antidisestablishmentarianism, they said; " * 60
    encoder = load_encoder(EncoderSettings(model=str(tiny_model), backend=BackendName.TORCH))
    found = prepare(batch_of([text]), encoder, Role.DOCUMENT, LongTexts(OnLong.CHUNK, overlap=16))
    assert len(found.rows) > 2
    assert not found.tokenized.truncated.any()
    covered = np.zeros(len(text), bool)
    for start, end in zip(found.char_start, found.char_end, strict=True):
        covered[start:end] = True
    assert covered[: len(text.rstrip())].all()
    assert found.hashes[1] == text_hash(text[found.char_start[1] : found.char_end[1]])
    assert found.char_start[1] < found.char_end[0]
