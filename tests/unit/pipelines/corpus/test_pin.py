"""What an output folder is pinned to, and who is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from threading import Barrier

import pyarrow as pa
import pytest

from encoder.corpus_files import CORPUS_SPACE_FILE, read_corpus_space
from encoder.errors import InvalidInputError, NewerFormatError, SpaceMismatchError
from encoder.space import EmbeddingSpace, Pooling, RoleEncoding
from pipelines.corpus.pin import (
    CorpusLayout,
    Pin,
    check_pin,
    pin_output,
    read_pin,
    require_pin,
)
from pipelines.errors import CorpusError, LayoutMismatchError
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.storage import Storage
from support.corpora import a_layout, a_pin
from support.fake_encoder import SPACE

OTHER_SPACE = {
    "weights_sha256": "c" * 64,
    "tokenizer_sha256": "d" * 64,
    "query": RoleEncoding(Pooling.CLS),
    "document": RoleEncoding(Pooling.CLS, "passage: "),
    "normalize": False,
    "max_seq_length": 512,
    "truncate_dim": 2,
    "dimension": 2,
}
OTHER_LAYOUT = {
    "role": "query",
    "id_column": "key",
    "text_columns": ("title", "text"),
    "carried": (("id", "string"), ("lang", "string")),
    "embedding_dtype": "float16",
    "on_long": "chunk",
    "chunk_overlap": 7,
    "rows_per_shard": 4,
    "unit_bytes": 5,
}


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "out"))


def shown(value: object) -> str:
    return json.dumps(asdict(value) if isinstance(value, RoleEncoding) else value)


def test_every_field_has_another_value_to_be_tested_with():
    assert set(OTHER_SPACE) == {field.name for field in fields(EmbeddingSpace)}
    assert set(OTHER_LAYOUT) == {field.name for field in fields(CorpusLayout)}


@pytest.mark.parametrize("field", OTHER_SPACE)
def test_another_space_is_refused_with_the_field_and_both_values(storage, field):
    pin_output(storage, a_pin())
    other = replace(SPACE, **{field: OTHER_SPACE[field]})
    with pytest.raises(SpaceMismatchError) as raised:
        pin_output(storage, a_pin(other))
    there, here = shown(getattr(SPACE, field)), shown(OTHER_SPACE[field])
    assert f"{field}: corpus {there}, here {here}" in str(raised.value)
    assert SPACE.fingerprint in str(raised.value)
    assert other.fingerprint in str(raised.value)
    assert read_pin(storage) == a_pin()


@pytest.mark.parametrize("field", OTHER_LAYOUT)
def test_another_layout_is_refused_with_the_field_and_both_values(storage, field):
    pin_output(storage, a_pin())
    with pytest.raises(LayoutMismatchError) as raised:
        pin_output(storage, a_pin(**{field: OTHER_LAYOUT[field]}))
    name, there, here = field, getattr(a_layout(), field), OTHER_LAYOUT[field]
    if field == "carried":
        name, there, here = "columns", ["id"], ["id", "lang"]
    assert f"{name}: corpus {json.dumps(there)}, here {json.dumps(here)}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_to_do_with_a_pin_without_shards_is_said_and_of_one_with_shards_it_is_not(storage):
    pin_output(storage, a_pin())
    advice = f"if no other job is at work, delete {storage.below('_space.json')}"
    with pytest.raises(LayoutMismatchError) as raised:
        check_pin(storage, a_pin(role="query"))
    assert advice in str(raised.value)
    storage.create("data/x.parquet", b"shard")
    with pytest.raises(LayoutMismatchError) as raised:
        check_pin(storage, a_pin(role="query"))
    assert "delete" not in str(raised.value)


def test_all_fields_that_differ_are_named_at_once(storage):
    pin_output(storage, a_pin())
    with pytest.raises(LayoutMismatchError, match=r"role: .*; rows_per_shard: "):
        pin_output(storage, a_pin(role="query", rows_per_shard=9))


def test_of_carried_columns_the_pinned_types_win(storage):
    pinned = replace(a_pin(), carried=pa.schema([("id", pa.int64())]))
    pinned = replace(pinned, layout=a_layout(carried=(("id", "int64"),)))
    pin_output(storage, pinned)
    assert pin_output(storage, a_pin()) == pinned
    assert check_pin(storage, a_pin()).columns.carried.field("id").type == pa.int64()


def test_provenance_is_recorded_but_not_compared(storage):
    pin_output(storage, a_pin())
    assert pin_output(storage, replace(a_pin(), provenance={"model": "s3"})) == a_pin()


def test_of_a_model_that_the_hub_has_moved_the_pinned_commit_is_named(storage):
    then, now = ({"model": "org/x", "revision": commit * 40} for commit in "ab")
    pin_output(storage, replace(a_pin(), provenance=then))
    moved = a_pin(replace(SPACE, tokenizer_sha256="d" * 64))
    with pytest.raises(SpaceMismatchError, match=f"give --model org/x@{'a' * 40}, or a mirror"):
        check_pin(storage, replace(moved, provenance={**now, "model": "org/x@main"}))
    for other in ({**now, "model": "org/y"}, {"model": "org/x"}, then):
        with pytest.raises(SpaceMismatchError, match=r"Use the same settings"):
            check_pin(storage, replace(moved, provenance=other))


def test_shards_without_a_pin_are_refused(storage):
    storage.create("data/x.parquet", b"shard")
    with pytest.raises(CorpusError, match=r"has a data folder but no _space\.json"):
        check_pin(storage, a_pin())


def test_checking_writes_nothing(storage):
    assert check_pin(storage, a_pin()) == a_pin()
    assert read_pin(storage) is None


def test_of_two_spaces_pinned_at_once_one_wins_and_the_other_is_refused(storage):
    together = Barrier(2)
    pins = [a_pin(), a_pin(replace(SPACE, max_seq_length=9))]

    def try_to_pin(pin: Pin) -> Pin | None:
        together.wait()
        try:
            return pin_output(storage, pin)
        except SpaceMismatchError:
            return None

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(try_to_pin, pins))
    assert sorted(pin is None for pin in won) == [False, True]
    assert [pin for pin in won if pin] == [read_pin(storage)]


def test_a_pin_comes_back_with_its_exact_arrow_types(storage):
    carried = pa.schema(
        [
            ("id", pa.int64()),
            ("tags", pa.list_(pa.string())),
            pa.field("at", pa.timestamp("us", "UTC"), metadata={"k": "v"}),
        ]
    )
    layout = a_layout(carried=tuple((field.name, str(field.type)) for field in carried))
    pin = Pin(SPACE, layout, carried, {"model": "x"})
    pin_output(storage, pin)
    found = read_pin(storage)
    assert found == pin
    assert found.carried.equals(carried, check_metadata=True)


def test_an_overlap_counts_only_where_texts_are_chunked():
    def layout(on_long: str, overlap: int) -> CorpusLayout:
        settings = EmbedCorpusSettings(
            input=("x",), output="y", on_long=on_long, chunk_overlap=overlap
        )
        return CorpusLayout.of(settings, CorpusColumns("id", ("text",), a_pin().carried))

    assert layout("truncate", 10) == layout("truncate", 20)
    assert layout("chunk", 10).differences(layout("chunk", 20)) == {"chunk_overlap": (10, 20)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 0}',
        a_pin().to_json().replace('"format": 1,', ""),
        a_pin().to_json().replace("rows_per_shard", "rows"),
        a_pin().to_json().replace('"arrow_schema": "', '"arrow_schema": "AAAA'),
    ],
)
def test_a_damaged_pin_is_named_with_what_to_do(storage, text):
    storage.create(CORPUS_SPACE_FILE, text.encode())
    with pytest.raises(CorpusError, match=r"_space\.json is not a corpus pin .* another folder"):
        read_pin(storage)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (('"truncate"', '"summarise"'), "layout.on_long: expected 'truncate', 'chunk' or 'reject'"),
        (('"float32"', '"int8"'), "layout.embedding_dtype: expected 'float32' or 'float16'"),
        (('"role": "document"', '"role": "x"'), "layout.role: expected 'query' or 'document'"),
        (('"unit_bytes"', '"chunker": 2, "unit_bytes"'), "layout.chunker: expected no such field"),
        (('"unit_bytes": 1000000', '"unit_bytes": "1"'), "unit_bytes: expected a valid integer"),
    ],
)
def test_a_layout_of_other_values_is_refused_with_the_field(storage, written, problem):
    text = a_pin().to_json()
    assert text.replace(*written) != text
    storage.create(CORPUS_SPACE_FILE, text.replace(*written).encode())
    with pytest.raises(CorpusError, match=problem):
        read_pin(storage)


def test_a_space_that_is_not_its_fingerprints_is_refused(storage):
    text = a_pin().to_json().replace('"normalize": true', '"normalize": false')
    storage.create(CORPUS_SPACE_FILE, text.encode())
    with pytest.raises(CorpusError, match=f"its fingerprint is {SPACE.fingerprint}, that of its"):
        read_pin(storage)
    with pytest.raises(InvalidInputError, match=r"its fingerprint is .* one of them was changed"):
        read_corpus_space(storage.uri)


def test_a_pin_of_a_newer_twofold_is_left_as_it_is(storage):
    """Whatever else stands in it: the job and the endpoint say the same."""
    pin = {**json.loads(a_pin().to_json()), "format": 2, "storage": "int8"}
    storage.create(CORPUS_SPACE_FILE, json.dumps(pin).encode())
    for read in (lambda: read_pin(storage), lambda: read_corpus_space(storage.uri)):
        with pytest.raises(NewerFormatError, match=r"_space\.json .* newer .* format 1, found 2"):
            read()


def test_a_folder_that_must_be_a_corpus_but_is_none_is_named(storage):
    with pytest.raises(CorpusError, match=f"{storage.uri} is no corpus"):
        require_pin(storage)
