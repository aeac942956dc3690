"""Vectors of texts that are there already: the right ones, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import StorageError
from pipelines.actor.prepare import text_hash
from pipelines.columns import shard_schema
from pipelines.corpus import earlier_texts
from pipelines.corpus.earlier_texts import EarlierTexts, EarlierVectors
from pipelines.corpus.shard_file import ShardFile
from pipelines.corpus.shards import DATA, ShardName, serialize_shard
from pipelines.storage import Storage
from support.corpora import CARRIED, a_footer, a_unit
from support.fake_encoder import DIMENSION, SPACE, vector_of

MADE_BY = {"backend": "openvino", "dtype": "bfloat16", "model": "m", "torch": "2.13.0"}
ABC = ["text a", "text b", "text c"]


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "out"))


def a_shard(
    storage: Storage,
    texts: Sequence[str],
    *,
    ordinal: int = 0,
    space=SPACE,
    dtype: str = "float32",
    made_by: dict[str, str] = MADE_BY,
) -> ShardName:
    """Commit a shard of texts with the fake encoder's vectors."""
    rows = len(texts)
    vectors = np.array([vector_of(text) for text in texts], dtype).reshape(-1)
    columns = [
        pa.array([str(row) for row in range(rows)]),
        pa.array([0] * rows, pa.int32()),
        pa.array([0] * rows, pa.int64()),
        pa.array([len(text) for text in texts], pa.int64()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors), DIMENSION),
        pa.array([len(text.split()) for text in texts], pa.int32()),
        pa.array([False] * rows),
        pa.array([text_hash(text) for text in texts], pa.binary(16)),
    ]
    schema = shard_schema(CARRIED, dimension=DIMENSION, embedding_dtype=dtype)
    unit = a_unit()
    footer = a_footer(unit, ordinal, rows=rows, documents=rows, provenance=made_by)
    name = ShardName(unit.key, ordinal, last=True)
    table = pa.Table.from_arrays(columns, schema=schema)
    assert storage.create(f"{DATA}/{name}", serialize_shard(table, footer, space))
    return name


def earlier(storage: Storage, *names: ShardName, made_by: dict[str, str] = MADE_BY) -> EarlierTexts:
    return EarlierTexts(names, EarlierVectors(storage, space=SPACE, provenance=made_by))


def found_in(texts: EarlierTexts, asked: Sequence[str]) -> dict[str, list[float]]:
    found = texts.find([text_hash(text) for text in asked])
    assert found.positions.tolist() == sorted(found.positions.tolist())
    assert found.vectors.dtype == np.float32
    return {asked[at]: v.tolist() for at, v in zip(found.positions, found.vectors, strict=True)}


def vectors_of(*texts: str) -> dict[str, list[float]]:
    return {text: vector_of(text).tolist() for text in texts}


def test_texts_get_their_vectors_from_whichever_shard_and_new_ones_get_none(storage):
    names = [a_shard(storage, ABC), a_shard(storage, ["text d", "text a"], ordinal=1)]
    texts = earlier(storage, *names)
    assert len(texts) == 5
    asked = ["text d", "new", "text c", "text a", "newer"]
    assert found_in(texts, asked) == vectors_of("text d", "text c", "text a")


@settings(deadline=None, max_examples=40)
@given(
    shards=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12), min_size=1, max_size=4),
    asked=st.lists(st.integers(0, 40), max_size=40),
)
def test_what_is_found_is_what_is_there(tmp_path_factory, shards, asked):
    storage = Storage(str(tmp_path_factory.mktemp("out")))
    names = [
        a_shard(storage, [f"text {n}" for n in texts], ordinal=ordinal)
        for ordinal, texts in enumerate(shards)
    ]
    found = earlier(storage, *names).find([text_hash(f"text {n}") for n in asked])
    there = {n for texts in shards for n in texts}
    assert found.positions.tolist() == [at for at, n in enumerate(asked) if n in there]
    for at, vector in zip(found.positions.tolist(), found.vectors, strict=True):
        np.testing.assert_array_equal(vector, vector_of(f"text {asked[at]}"))


def test_vectors_in_half_precision_come_back_as_they_are_stored(storage):
    found = found_in(earlier(storage, a_shard(storage, ABC, dtype="float16")), ["text b"])
    stored = vector_of("text b").astype(np.float16)
    assert found == {"text b": stored.astype(np.float32).tolist()}


def test_a_shard_is_not_read_for_a_few_of_its_many_rows(storage):
    texts = earlier(storage, a_shard(storage, [f"text {n}" for n in range(33)]))
    # Two rows, each asked for by two texts.
    assert found_in(texts, ["text 0", "text 1", "text 0", "text 1"]) == {}
    assert len(found_in(texts, [f"text {n}" for n in range(3)])) == 3


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_what_was_read_is_kept_as_far_as_there_is_memory(storage, monkeypatch, kept):
    monkeypatch.setattr(earlier_texts, "_KEPT_VECTORS_BYTES", kept * 3 * (4 * DIMENSION + 16))
    names = [a_shard(storage, ABC), a_shard(storage, ["text d"] * 3, ordinal=1)]
    texts, read = earlier(storage, *names), []

    class Watched(ShardFile):
        def __init__(self, storage: Storage, name: ShardName, **more: object) -> None:
            read.append(names.index(name))
            super().__init__(storage, name, **more)

    monkeypatch.setattr(earlier_texts, "ShardFile", Watched)
    for asked in ("text a", "text b", "text d", "text d", "text c"):
        assert found_in(texts, [asked]) == vectors_of(asked)
    assert read == {0: [0, 0, 1, 1, 0], 1: [0, 1, 0], 2: [0, 1]}[kept]


def test_hashes_are_read_once_for_whoever_looks_among_other_shards_too(storage, monkeypatch):
    names = [a_shard(storage, ABC), a_shard(storage, ["text d"], ordinal=1)]
    vectors = EarlierVectors(storage, space=SPACE, provenance=MADE_BY)
    opened = []
    opens = Storage.open
    monkeypatch.setattr(
        Storage, "open", lambda *of, **more: opened.append(of) or opens(*of, **more)
    )
    assert len(EarlierTexts(names[:1], vectors)) == 3
    assert len(EarlierTexts(names, vectors)) == 4
    assert len(opened) == 2


def test_of_a_text_that_several_shards_hold_that_of_the_first_is_read(storage, monkeypatch):
    names = [a_shard(storage, ABC, ordinal=ordinal) for ordinal in range(4)]
    first = names[::-1]
    texts = earlier(storage, *first)
    for name in names[:-1]:
        storage.delete(f"{DATA}/{name}")
    assert found_in(texts, ABC) == vectors_of(*ABC)


def test_rows_of_large_shards_in_several_row_groups_are_the_right_ones(storage, tmp_path):
    many = [f"text {n}" for n in range(3_000)]
    name = a_shard(storage, many)
    file = tmp_path / "out" / DATA / str(name)
    table = pq.read_table(file)
    for rows_of_a_group in (3_000, 777, 1):
        pq.write_table(table, file, row_group_size=rows_of_a_group)
        texts = earlier(storage, name)
        assert found_in(texts, many[::-1]) == vectors_of(*many)
        assert found_in(texts, many[1::3]) == vectors_of(*many[1::3])


def test_half_a_hash_is_no_text(storage, monkeypatch):
    name = a_shard(storage, ABC)
    halves = [text_hash(text)[:8] + bytes(8) for text in ABC]
    assert earlier(storage, name).find(halves).positions.tolist() == []


@pytest.mark.parametrize(
    "texts", [["text d", "text e", "text f"], ["text c", "text b", "text a"], ["text a"]]
)
def test_a_shard_that_was_written_again_meanwhile_gives_no_other_texts_vectors(storage, texts):
    name = a_shard(storage, ABC)
    found = earlier(storage, name)
    storage.delete(f"{DATA}/{name}")
    a_shard(storage, texts)
    assert found_in(found, ABC).items() <= vectors_of(*ABC).items()


@pytest.mark.parametrize(
    "made_by",
    [
        {**MADE_BY, "backend": "torch"},
        {**MADE_BY, "dtype": "float32"},
        {**MADE_BY, "int8_graph": "1f2e"},
    ],
)
def test_what_was_computed_in_another_way_is_computed_again(storage, made_by):
    name = a_shard(storage, ABC)
    assert len(earlier(storage, name, made_by=made_by)) == 0
    assert found_in(earlier(storage, name, made_by={**MADE_BY, "torch": "3.0"}), ABC)


def test_vectors_of_another_space_are_none_of_these(storage):
    name = a_shard(storage, ABC, space=replace(SPACE, max_seq_length=7))
    assert found_in(earlier(storage, name), ABC) == {}


def test_without_shards_nothing_is_found(storage):
    assert found_in(earlier(storage), ABC) == {}
    assert found_in(earlier(storage, a_shard(storage, ABC)), []) == {}


def test_a_shard_that_is_gone_is_passed_over_whenever_it_goes(storage, caplog):
    names = [a_shard(storage, ABC), a_shard(storage, ["text d"], ordinal=1)]
    texts = earlier(storage, *names)
    storage.delete(f"{DATA}/{names[0]}")
    assert found_in(texts, [*ABC, "text d"]) == vectors_of("text d")
    assert found_in(earlier(storage, *names), [*ABC, "text d"]) == vectors_of("text d")
    assert f"no vectors are taken from {storage.below(f'{DATA}/{names[0]}')}" in caplog.text


@pytest.mark.parametrize(
    "column",
    [
        None,
        pa.array([text_hash(text).hex() for text in ABC]),
        pa.array([text_hash(text)[:8] for text in ABC], pa.binary(8)),
        pa.array([text_hash("text a"), None, None], pa.binary(16)),
    ],
)
def test_a_shard_without_its_hashes_has_no_texts(storage, tmp_path, column, caplog):
    name = a_shard(storage, ABC)
    file = tmp_path / "out" / DATA / str(name)
    table = pq.read_table(file)
    at = table.schema.names.index("text_hash")
    table = table.remove_column(at)
    pq.write_table(table if column is None else table.add_column(at, "text_hash", column), file)
    assert found_in(earlier(storage, name), ABC) == {}
    assert "expected a column text_hash of 16 bytes a row" in caplog.text


def test_a_shard_of_a_newer_version_has_no_texts(storage, tmp_path, caplog):
    name = a_shard(storage, ABC)
    file = tmp_path / "out" / DATA / str(name)
    table = pq.read_table(file)
    pq.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"twofold.format": b"99"}), file
    )
    assert found_in(earlier(storage, name), ABC) == {}
    assert "was written by a newer version of twofold" in caplog.text


@pytest.mark.parametrize("column", ["embedding", "text_hash"])
def test_a_bit_that_flipped_on_the_disk_gets_into_no_other_shard(storage, tmp_path, column, caplog):
    name = a_shard(storage, ABC)
    file = tmp_path / "out" / DATA / str(name)
    content = file.read_bytes()
    value = vector_of("text b").tobytes() if column == "embedding" else text_hash("text b")
    file.write_bytes(content.replace(value, bytes([value[0] ^ 1]) + value[1:]))
    assert file.read_bytes() != content
    assert found_in(earlier(storage, name), ABC) == {}
    assert "is not readable" in caplog.text


def test_what_is_no_number_is_computed_again(storage, monkeypatch, caplog):
    nan = np.full(DIMENSION, np.nan, np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(f"{__name__}.vector_of", lambda text: nan)
        name = a_shard(storage, ABC)
    assert found_in(earlier(storage, name), ABC) == {}
    assert "holds rows whose vectors are none, or no numbers" in caplog.text


def test_a_store_that_does_not_answer_is_no_reason_to_compute(storage, monkeypatch):
    name = a_shard(storage, ABC)

    def fails(*_: object, **__: object) -> None:
        raise StorageError("the store is away")

    monkeypatch.setattr(Storage, "open", fails)
    with pytest.raises(StorageError, match="the store is away"):
        earlier(storage, name)
