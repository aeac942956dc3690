"""A shard says by its name how far its unit is, and by its footer what is in it."""

from __future__ import annotations

import io
import json

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import NewerFormatError
from pipelines.corpus.shards import (
    DATA,
    ShardName,
    footer_of,
    group_by_unit,
    read_footer,
    serialize_rejects,
    serialize_shard,
)
from pipelines.errors import CorpusError
from pipelines.storage import Storage
from support.corpora import a_footer, a_shard_table
from support.fake_encoder import SPACE

NAME = ShardName("0" * 32, 0, last=True)
names = st.builds(
    ShardName,
    unit=st.text("0123456789abcdef", min_size=32, max_size=32),
    ordinal=st.integers(0, 10**7),
    last=st.booleans(),
)


def a_table(rows: int = 5, embedding_dtype: str = "float32") -> pa.Table:
    return a_shard_table([f"doc {n}" for n in range(rows)], embedding_dtype=embedding_dtype)


@given(names)
def test_a_name_comes_back_from_its_text(name):
    assert ShardName.parse(str(name)) == name


@pytest.mark.parametrize(
    "other",
    [
        f".{NAME}.1f.tmp",
        f"{NAME}.tmp",
        "x.parquet",
        f"{'0' * 31}-00000.parquet",
        f"{'0' * 32}-0000.parquet",
        f"{'0' * 32}-00000-LAST.parquet",
        f"{'G' * 32}-00000.parquet",
    ],
)
def test_a_file_that_is_no_shard_has_no_name(other):
    assert ShardName.parse(other) is None
    assert group_by_unit([other]) == {}


@given(ordinals=st.sets(st.integers(0, 6)), last=st.integers(0, 6))
def test_a_unit_is_complete_when_its_last_shard_and_all_before_it_exist(ordinals, last):
    present = {n for n in ordinals if n <= last}
    listing = [str(ShardName("a" * 32, n, n == last)) for n in sorted(present, reverse=True)]
    unit = group_by_unit(listing).get("a" * 32)
    if unit is None:
        assert not present
        return
    assert unit.complete == (present == set(range(last + 1)))
    assert unit.next_ordinal == min(set(range(last + 2)) - present)


def test_units_of_one_listing_are_kept_apart():
    listing = [str(ShardName(unit * 32, 0, unit == "a")) for unit in "ab"]
    units = group_by_unit(listing)
    assert units["a" * 32].complete
    assert not units["b" * 32].complete


def test_footer_and_space_come_back_from_the_file(tmp_path):
    storage, footer = Storage(str(tmp_path)), a_footer(tokens=12_345, provenance={"é": "“ü”"})
    storage.create(f"{DATA}/{NAME}", serialize_shard(a_table(), footer, SPACE))
    assert read_footer(storage, NAME) == (footer, SPACE)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"no parquet at all", b"PAR1" + bytes(100) + b"PAR1"]
)
def test_a_damaged_shard_is_named_in_one_line(tmp_path, content):
    storage = Storage(str(tmp_path))
    storage.create(f"{DATA}/{NAME}", content)
    with pytest.raises(CorpusError, match=str(NAME)) as raised:
        read_footer(storage, NAME)
    assert "\n" not in str(raised.value)


def with_metadata(**changes: str) -> pa.Schema:
    metadata = {"twofold.space": SPACE.to_json(), "twofold.shard": a_footer().to_json(), **changes}
    return pa.schema([], metadata)


def test_a_parquet_file_without_a_footer_of_ours_is_named():
    with pytest.raises(CorpusError, match=r"x\.parquet has no twofold footer"):
        footer_of(pa.schema([("id", pa.string())]), "x.parquet")


@pytest.mark.parametrize(
    "shard",
    ["{", "[]", "{}", json.dumps({**json.loads(a_footer().to_json()), "news": 1})],
)
def test_a_footer_that_is_not_one_is_named(shard):
    with pytest.raises(CorpusError, match=r"x\.parquet"):
        footer_of(with_metadata(**{"twofold.shard": shard}), "x.parquet")


def test_a_footer_of_a_newer_twofold_is_told_from_a_damaged_one():
    shard = json.dumps({**json.loads(a_footer().to_json()), "news": 1})
    schema = with_metadata(**{"twofold.format": "2", "twofold.shard": shard})
    with pytest.raises(NewerFormatError, match=r"x\.parquet was written by a newer version"):
        footer_of(schema, "x.parquet")


@pytest.mark.parametrize("found", ["0", "x", "", "-1", "9" * 5000], ids=ascii)
def test_a_footer_of_no_format_is_named(found):
    with pytest.raises(CorpusError, match=r"x\.parquet .*format: expected 1"):
        footer_of(with_metadata(**{"twofold.format": found}), "x.parquet")


def test_a_footer_says_its_format_and_one_that_does_not_is_of_the_first():
    written = pq.read_schema(pa.BufferReader(serialize_shard(a_table(), a_footer(), SPACE)))
    assert written.metadata[b"twofold.format"] == b"1"
    assert footer_of(with_metadata(), "x.parquet") == footer_of(written, "x.parquet")


def test_a_space_that_is_not_one_is_named():
    with pytest.raises(CorpusError, match=r"x\.parquet"):
        footer_of(with_metadata(**{"twofold.space": "{}"}), "x.parquet")


@pytest.mark.parametrize("embedding_dtype", ["float32", "float16"])
def test_pyarrow_pandas_and_duckdb_read_equal_vectors(tmp_path, embedding_dtype):
    table = a_table(embedding_dtype=embedding_dtype)
    path = tmp_path / "shard.parquet"
    path.write_bytes(serialize_shard(table, a_footer(), SPACE))
    expected = np.array(table["embedding"].to_pylist(), embedding_dtype)

    arrow = pq.read_table(path)
    assert arrow.schema.equals(table.schema)
    assert arrow.equals(table)

    frame = pd.read_parquet(path)
    np.testing.assert_array_equal(np.stack(frame["embedding"]), expected)
    assert frame["embedding"][0].dtype == embedding_dtype
    assert frame["id"].tolist() == table["id"].to_pylist()

    rows = duckdb.sql(f"SELECT id, embedding, text_hash FROM '{path}'").fetchall()
    np.testing.assert_array_equal(np.array([row[1] for row in rows], embedding_dtype), expected)
    assert [row[2] for row in rows] == table["text_hash"].to_pylist()


NESTED = pa.struct(
    [
        ("a", pa.struct([("b", pa.list_(pa.int64()))])),
        ("m", pa.map_(pa.string(), pa.string())),
    ]
)


def test_vectors_are_stored_plain_and_the_rest_compressed():
    table = a_table()
    nested = pa.array([{"a": {"b": [1, 2]}, "m": [("k", "v")]}] * len(table), NESTED)
    content = serialize_shard(table.append_column("n", nested), a_footer(), SPACE)
    group = pq.read_metadata(io.BytesIO(content)).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    found = {column.path_in_schema: column.compression for column in columns}
    plain = {c.path_in_schema for c in columns if "RLE_DICTIONARY" not in c.encodings}
    assert plain == {"embedding.list.element", "text_hash", "truncated"}  # a bit has no dictionary
    assert found.pop("embedding.list.element") == "UNCOMPRESSED"
    assert found.pop("text_hash") == "UNCOMPRESSED"
    assert set(found.values()) == {"ZSTD"}
    assert {name for name in found if name.startswith("n.")} == {
        "n.a.b.list.element",
        "n.m.key_value.key",
        "n.m.key_value.value",
    }


def test_rejects_are_readable_with_their_nulls():
    row = {"id": None, "source": "a", "row": None, "reason": "r", "stage": "read"}
    table = pq.read_table(io.BytesIO(serialize_rejects([row])))
    assert table.to_pylist() == [row]
