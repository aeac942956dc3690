"""Documents and rejects: every row of a unit once, with its reason where it is not embedded."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoder.errors import InvalidInputError
from pipelines.errors import SourceChangedError, UnreadableSourceError
from pipelines.source import column_inference, documents
from pipelines.source.column_inference import infer_columns
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.documents import DocumentBatch, Reject, read_documents
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources
from pipelines.source.units import Format, RangeKind, Source, WorkUnit

ON_DISK = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


def columns_of(path: Path, *names: str, text: tuple[str, ...] = ("text",)) -> CorpusColumns:
    sources = list_sources([str(path)], None)
    return infer_columns(sources, id_column="id", text_columns=text, pass_through=names)


def units_of(path: Path, unit_bytes: int = 10**9) -> list[WorkUnit]:
    sources = list_sources([str(path)], None)
    return plan_units(sources, unit_bytes=unit_bytes, tolerate_unreadable=False)


def batches_of(path: Path, columns: CorpusColumns, **options: int) -> list[DocumentBatch]:
    (unit,) = units_of(path)
    return list(read_documents(unit, columns, **options))


def pinned(*fields: tuple[str, pa.DataType], text: tuple[str, ...] = ("text",)) -> CorpusColumns:
    return CorpusColumns("id", text, pa.schema([("id", pa.int64()), *fields]))


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def only_reject(path: Path, columns: CorpusColumns) -> Reject:
    """The one reject of a file whose other rows are documents."""
    rejects = [reject for batch in batches_of(path, columns) for reject in batch.rejects]
    assert len(rejects) == 1
    return rejects[0]


def check_conservation(batches: list[DocumentBatch], first: int = 0) -> int:
    """Batches are contiguous and account for each of their rows once; return the row after."""
    for batch in batches:
        assert batch.row_start == first
        positions = sorted([*batch.rows, *(reject.row for reject in batch.rejects)])
        assert positions == list(range(batch.row_start, batch.row_stop))
        assert len(batch.texts) == len(batch.rows) == batch.carried.num_rows
        first = batch.row_stop
    return first


# The types of the carried columns


def test_parquet_types_are_kept_and_dictionaries_become_their_values(tmp_path):
    parquet(
        tmp_path / "a.parquet",
        id=pa.array([1], pa.int32()),
        text=["a"],
        tag=pa.array(["x"]).dictionary_encode(),
        when=pa.array([0], pa.timestamp("ns", "UTC")),
        none=pa.nulls(1),
    )
    assert columns_of(tmp_path, "tag", "when", "none").carried == pa.schema(
        [
            ("id", pa.int32()),
            ("tag", pa.string()),
            ("when", pa.timestamp("ns", "UTC")),
            ("none", pa.string()),
        ]
    )


def rows_of(folder: Path, columns: CorpusColumns) -> tuple[list[Any], list[str]]:
    """Values of the second carried column, and the reasons of rejects, of all files."""
    found = [batch for unit in units_of(folder) for batch in read_documents(unit, columns)]
    values = [value for batch in found for value in batch.carried.column(1).to_pylist()]
    return values, [reject.reason for batch in found for reject in batch.rejects]


def test_a_column_of_which_the_first_files_hold_only_null_has_the_type_of_a_later_one(tmp_path):
    parquet(tmp_path / "a.parquet", id=["0"], text=["a"], views=pa.nulls(1))
    parquet(tmp_path / "b.parquet", id=["1"], text=["b"], views=pa.array([7], pa.int64()))
    parquet(tmp_path / "c.parquet", id=["2"], text=["c"], views=pa.nulls(1))
    columns = columns_of(tmp_path, "views")
    assert columns.carried.field("views").type == pa.int64()
    assert columns.said_by["views"].endswith("b.parquet")
    assert rows_of(tmp_path, columns) == ([None, 7, None], [])


def test_what_the_first_file_says_stays_whatever_else_a_later_one_is_looked_at_for(tmp_path):
    jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "a", "views": None, "tag": "x"})
    jsonl(tmp_path / "b.jsonl", {"id": "one", "text": "b"})
    jsonl(tmp_path / "c.jsonl", {"id": 3, "text": "c", "views": 7, "tag": 5})
    columns = columns_of(tmp_path, "views", "tag")
    assert columns.carried == pa.schema(
        [("id", pa.int64()), ("views", pa.int64()), ("tag", pa.string())]
    )
    assert [reason.partition(",")[0] for reason in rows_of(tmp_path, columns)[1]] == [
        "column 'id': expected int64",
        "column 'tag': expected string",
    ]


def test_an_empty_file_that_pandas_wrote_first_says_no_types(tmp_path):
    parquet(tmp_path / "a.parquet", id=pa.nulls(0), text=pa.nulls(0), views=pa.nulls(0))
    parquet(tmp_path / "b.parquet", id=[1], text=["b"], views=[2.5])
    columns = columns_of(tmp_path, "views")
    assert columns.carried == pa.schema([("id", pa.int64()), ("views", pa.float64())])
    assert rows_of(tmp_path, columns) == ([2.5], [])


def test_a_column_of_which_no_file_tells_the_type_is_string_and_that_is_said(tmp_path, caplog):
    jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "a", "views": None, "tag": "x"})
    assert columns_of(tmp_path, "views", "tag").carried.field("views").type == pa.string()
    assert "columns ['views']: expected values that tell their type" in caplog.text


def test_so_many_files_are_looked_at_for_a_columns_type_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(column_inference, "_MOST_LOOKS", 3)
    for number in range(5):
        views = None if number < 3 else 7
        jsonl(tmp_path / f"{number}.jsonl", {"id": 1, "text": "a", "views": views})
    assert columns_of(tmp_path, "views").carried.field("views").type == pa.string()
    (tmp_path / "1.jsonl").unlink()
    assert columns_of(tmp_path, "views").carried.field("views").type == pa.int64()


def test_ids_that_are_uuids_or_views_are_carried_and_named_in_rejects(tmp_path):
    first, second = uuid4(), uuid4()
    uuids = pa.array([first.bytes, second.bytes], pa.uuid())
    views = pa.array(["a", "b"], pa.string_view())
    bytes_views = pa.array([b"a", b"b"], pa.binary_view())
    for name, ids, said in (("u", uuids, str(second)), ("v", views, "b"), ("w", bytes_views, "b")):
        path = parquet(tmp_path / f"{name}.parquet", id=ids, text=["t", " "], x=ids)
        columns = columns_of(path, "x")
        batches = batches_of(path, columns)
        (reject,) = [reject for batch in batches for reject in batch.rejects]
        assert reject.id in (said, said.encode())
        (kept,) = [batch.carried.column("x").to_pylist() for batch in batches]
        assert kept == ids.slice(0, 1).to_pylist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 2], pa.int64()),
        ([1, 1.5, 2], pa.float64()),
        ([True, None], pa.bool_()),
        (["a"], pa.string()),
        (["2024-01-01T00:00:00"], pa.string()),
        ([None, None], pa.string()),
        ([[1, 2], []], pa.list_(pa.int64())),
        ([[]], pa.list_(pa.string())),
        ([{"a": 1}, {"b": None}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([[], [{"a": None}], [{}]], pa.list_(pa.struct([("a", pa.string())]))),
        ([1, 2**63, 2**64 - 1], pa.uint64()),
        ([-1, 2**63], pa.int64()),
        (["a", 1, 2], pa.int64()),
        ([True, 1.5, 2], pa.float64()),
        ([2**70, 1], pa.int64()),
    ],
)
def test_json_types_are_inferred_from_the_values(tmp_path, values, expected):
    jsonl(tmp_path / "a.jsonl", *({"id": 1, "text": "t", "x": value} for value in values))
    assert columns_of(tmp_path, "x").carried.field("x").type == expected


@pytest.mark.parametrize("values", [[{}], [{"k": {}}], [[{}], None], [2**70], [{"k": 2**70}]])
def test_a_json_column_that_no_type_holds_says_no_type_and_why(tmp_path, values):
    jsonl(tmp_path / "a.jsonl", *({"id": 1, "text": "t", "x": value} for value in values))
    found = columns_of(tmp_path, "x")
    assert found.said_by.keys() == {"id"}
    assert found.without_type.keys() == {"x"}
    assert "a.jsonl: expected values of one type in column 'x', found" in found.without_type["x"]


def test_a_single_value_that_no_type_holds_is_no_reason_to_refuse_the_others(tmp_path):
    jsonl(tmp_path / "a.jsonl", *({"id": 1, "text": "t", "x": x} for x in ({}, None, None, None)))
    found = columns_of(tmp_path, "x")
    assert (found.without_type, found.said_by.keys()) == ({}, {"id"})


def test_columns_of_which_no_source_says_the_type_are_guessed_strings(tmp_path):
    jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "t", "x": None, "y": "a"})
    found = columns_of(tmp_path, "x", "y")
    assert found.said_by == dict.fromkeys(("id", "y"), str(tmp_path / "a.jsonl"))
    assert found.carried.field("x").type == pa.string()
    # Another format says it.
    parquet(tmp_path / "b.parquet", id=[1], text=["t"], x=pa.array([2], pa.int64()), y=["a"])
    found = columns_of(tmp_path, "x", "y")
    assert found.said_by["x"] == str(tmp_path / "b.parquet")
    assert found.carried.field("x").type == pa.int64()


def test_only_the_first_thousand_json_rows_are_looked_at(tmp_path):
    rows = [{"id": 1, "text": "t", "x": 1}] * 1000 + [{"id": 1, "text": "t", "x": 1.5}]
    jsonl(tmp_path / "a.jsonl", *rows)
    assert columns_of(tmp_path, "x").carried.field("x").type == pa.int64()


def test_only_the_first_bytes_of_json_rows_are_looked_at_but_one_row_at_least(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(column_inference, "_SAMPLED_BYTES", 1000)
    rows = [{"id": 1, "text": "t" * 200, "x": 1}] * 5 + [{"id": 1, "text": "t", "x": 1.5}]
    jsonl(tmp_path / "a.jsonl", *rows)
    assert columns_of(tmp_path, "x").carried.field("x").type == pa.int64()
    jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "t" * 2000, "x": 1.5}, {"id": "a", "text": "t"})
    assert columns_of(tmp_path, "x").carried.field("x").type == pa.float64()
    assert columns_of(tmp_path, "x").carried.field("id").type == pa.int64()


def test_of_json_rows_only_what_is_carried_is_kept(tmp_path):
    row = json.dumps({"id": 1, "text": "t" * 2**18}) + "\n"
    (tmp_path / "a.jsonl").write_text(row * 50)
    tracemalloc.start()
    try:
        columns_of(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
    finally:
        tracemalloc.stop()


def test_json_rows_without_a_name_lack_the_columns(tmp_path):
    jsonl(tmp_path / "a.jsonl", {}, {})
    with pytest.raises(InvalidInputError, match="expected a column 'id', found no columns"):
        columns_of(tmp_path)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_a_message_is_not_as_large_as_a_file_wants(tmp_path, name):
    names = ["\x1b[31mred\n", *(f"{number}-{'n' * 1000}" for number in range(1000))]
    if name == "a.parquet":
        parquet(tmp_path / name, **{name: [1] for name in names})
    elif name == "a.jsonl":
        jsonl(tmp_path / name, dict.fromkeys(names, 1))
    else:
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerow(names)
    with pytest.raises(InvalidInputError, match=r"expected a column .* 981 more") as error:
        columns_of(tmp_path)
    assert len(str(error.value)) < 2500
    assert str(error.value).isprintable()


def test_csv_columns_and_ids_of_lines_are_strings(tmp_path):
    (tmp_path / "a.csv").write_text("id,text,n\n1,a,2\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "b.txt").write_text("line\n")
    assert columns_of(tmp_path / "a.csv", "n").carried == pa.schema(
        [("id", pa.string()), ("n", pa.string())]
    )
    assert columns_of(tmp_path / "b").carried == pa.schema([("id", pa.string())])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", None),
        ("a.jsonl", '{"id": 1, "text": "t"}\n'),
        ("a.csv", "id,text\n1,t\n"),
    ],
)
@pytest.mark.parametrize("missing", ["id", "text", "pass"])
def test_a_missing_column_names_the_file_the_column_and_what_was_found(
    tmp_path, name, content, missing
):
    if content is None:
        parquet(tmp_path / name, id=[1], text=["t"])
    else:
        (tmp_path / name).write_text(content)
    names = {"id": "id", "text": "text", "pass": "id"} | {missing: "nothing"}
    with pytest.raises(InvalidInputError) as error:
        infer_columns(
            list_sources([str(tmp_path)], None),
            id_column=names["id"],
            text_columns=(names["text"],),
            pass_through=["nothing"] if missing == "pass" else [],
        )
    message = str(error.value)
    assert name in message
    assert "'nothing', found 'id', 'text'" in message
    assert "\n" not in message


def test_two_formats_must_agree_in_types(tmp_path):
    parquet(tmp_path / "a.parquet", id=[1], text=["t"])
    jsonl(tmp_path / "b.jsonl", {"id": "1", "text": "t"})
    with pytest.raises(InvalidInputError, match=r"'id' is int64 in .*a\.parquet and string in .*b"):
        columns_of(tmp_path)


def test_two_formats_that_agree_are_one_corpus(tmp_path):
    parquet(tmp_path / "a.parquet", id=pa.array(["1"], pa.large_string()), text=["t"])
    jsonl(tmp_path / "b.jsonl", {"id": "1", "text": "t"})
    (tmp_path / "c.csv").write_text("id,text\n3,a\n")
    (tmp_path / "d.txt").write_text("line\n")
    columns = columns_of(tmp_path)
    for unit in units_of(tmp_path):
        (batch,) = read_documents(unit, columns)
        assert batch.carried.schema == columns.carried
        assert len(batch.texts) == 1


@pytest.mark.parametrize("stored", [pa.int64(), pa.binary(), pa.list_(pa.string())])
def test_a_parquet_text_column_that_holds_no_strings_is_refused(tmp_path, stored):
    parquet(tmp_path / "a.parquet", id=[1], text=pa.nulls(1, stored))
    with pytest.raises(InvalidInputError, match="expected strings in text column 'text'"):
        columns_of(tmp_path)


def test_a_nested_id_is_refused(tmp_path):
    jsonl(tmp_path / "a.jsonl", {"id": [1], "text": "t"})
    with pytest.raises(InvalidInputError, match="id column 'id', found list"):
        columns_of(tmp_path)


def test_columns_of_text_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("line\n")
    with pytest.raises(InvalidInputError, match="leave --columns out"):
        columns_of(tmp_path, "title")


def test_files_without_rows_decide_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_text("not json\n")
    (tmp_path / "c.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"id,text\n1,t\n")[:15])
    jsonl(tmp_path / "d.jsonl", {"id": 1, "text": "t"})
    assert columns_of(tmp_path).carried.field("id").type == pa.int64()


def test_without_any_readable_row_columns_are_strings(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.csv").write_text("")
    assert columns_of(tmp_path, "x").carried == pa.schema([("id", pa.string()), ("x", pa.string())])


def test_the_readable_rows_of_a_truncated_file_are_enough_to_infer(tmp_path):
    rows = [{"id": number, "text": f"text {number * 7919}"} for number in range(20_000)]
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    assert columns_of(tmp_path).carried.field("id").type == pa.int64()


# Partition columns


def test_partition_values_are_carried_as_strings_after_the_columns(tmp_path):
    for lang in ("en", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / "year=2024" / f"lang={lang}"
        folder.mkdir(parents=True)
        parquet(folder / "a.parquet", id=[1, 2], text=["a", "b"], n=[1.0, 2.0])
    columns = columns_of(tmp_path, "n")
    assert columns.carried.names == ["id", "n", "year", "lang"]
    first, second = (next(read_documents(unit, columns)) for unit in units_of(tmp_path))
    assert first.carried["lang"].to_pylist() == [None, None]
    assert second.carried.to_pylist()[0] == {"id": 1, "n": 1.0, "year": "2024", "lang": "en"}


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_a_partition_column_named_as_pass_through_comes_from_the_path(tmp_path, name):
    folder = tmp_path / "lang=en"
    folder.mkdir()
    if name == "a.parquet":
        parquet(folder / name, id=[1], text=["a"], lang=["de"])
    elif name == "a.jsonl":
        jsonl(folder / name, {"id": 1, "text": "a", "lang": "de"})
    else:
        (folder / name).write_text("id,text\n1,a\n")
    columns = columns_of(tmp_path, "lang")
    assert columns.carried.names == ["id", "lang"]
    (batch,) = batches_of(tmp_path, columns)
    assert batch.carried["lang"].to_pylist() == ["en"]


def test_a_partition_column_with_a_name_of_the_job_is_refused(tmp_path):
    (tmp_path / "embedding=1").mkdir()
    parquet(tmp_path / "embedding=1" / "a.parquet", id=[1], text=["a"])
    with pytest.raises(InvalidInputError, match="embedding"):
        columns_of(tmp_path)


# What is a text


BAD_JSON = [
    ({"id": 7, "text": None}, "text is null", "7"),
    ({"id": 7}, "text is missing", "7"),
    ({"id": 7, "text": ""}, "text is empty", "7"),
    ({"id": 7, "text": " \t\r\n\u3000"}, "text is only white space", "7"),
    ({"id": 7, "text": "a\ud800b"}, "text has a lone surrogate", "7"),
    ({"id": 7, "text": 3}, "text is not a string (found number)", "7"),
    ({"id": 7, "text": False}, "text is not a string (found boolean)", "7"),
    ({"id": 7, "text": ["a"]}, "text is not a string (found list)", "7"),
    ({"id": 7, "text": {}}, "text is not a string (found object)", "7"),
    ({"text": "t"}, "id is missing", None),
    ({"id": None, "text": "t"}, "id is null", None),
    ({"id": "x", "text": "t"}, "column 'id': expected int64, found str 'x'", "x"),
    ({"id": 1.5, "text": "t"}, "column 'id': expected int64, found float 1.5", "1.5"),
    ({"id": 1.0, "text": "t"}, "column 'id': expected int64, found float 1.0", "1.0"),
    ({"id": True, "text": "t"}, "column 'id': expected int64, found bool True", "True"),
    ({"id": 2**63, "text": "t"}, f"column 'id': expected int64, found int {2**63}", str(2**63)),
    ({"id": [1], "text": "t"}, "column 'id': expected int64, found list [1]", "[1]"),
    ({"id": "\ud800", "text": "t"}, "column 'id': expected int64, found str '\\ud800'", "\\ud800"),
]


@pytest.mark.parametrize(("row", "reason", "name"), BAD_JSON)
def test_a_bad_json_row_is_rejected_with_its_reason_and_id(tmp_path, row, reason, name):
    path = jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "a"}, row, {"id": 2, "text": "b"})
    assert only_reject(path, pinned()) == Reject(name, 1, reason, "validate")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "line is empty"),
        (b"{", "line is not valid JSON"),
        (b"[]", "line is not a JSON object"),
        (b'{"id": 1, "text": "\xff"}', "line is not valid UTF-8"),
    ],
)
def test_a_line_that_cannot_be_read_is_rejected_at_that_stage(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1, "text": "a"}\n' + line + b'\n{"id": 2, "text": "b"}\n')
    assert only_reject(path, pinned()) == Reject(None, 1, reason, "read")


@pytest.mark.parametrize(
    ("line", "reason", "stage"),
    [
        (b"", "text is empty", "validate"),
        (b"  ", "text is only white space", "validate"),
        (b"\xff\xfe", "line is not valid UTF-8", "read"),
    ],
)
def test_a_bad_line_of_text_is_rejected_under_its_offset(tmp_path, line, reason, stage):
    path = tmp_path / "a.txt"
    path.write_bytes(b"ab\n" + line + b"\ncd\n")
    assert only_reject(path, columns_of(path)) == Reject(f"{path}:3", 1, reason, stage)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("7,", Reject("7", 1, "text is empty", "validate")),
        ('7," "', Reject("7", 1, "text is only white space", "validate")),
        (",t", Reject("", 1, "id is null", "validate")),
        ("7", Reject(None, 1, "row has too few fields", "read")),
        ("7,t,u", Reject(None, 1, "row has too many fields", "read")),
        ("", Reject(None, 1, "row is empty", "read")),
    ],
)
def test_a_bad_csv_row_is_rejected_with_its_reason(tmp_path, row, expected):
    path = tmp_path / "a.csv"
    path.write_text(f'id,text\n1,"a\nb"\n{row}\n2,c\n')
    assert only_reject(path, columns_of(path)) == expected


def test_csv_bytes_that_are_not_utf8_are_rejected_with_a_readable_id(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n1,a\n\xff7,b\n")
    assert only_reject(path, columns_of(path)) == Reject(
        "\\udcff7", 1, "row is not valid UTF-8", "read"
    )


def binary_as_string(*values: bytes | None) -> pa.Array:
    """Strings that a careless writer filled with any bytes."""
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), binary.buffers())


@pytest.mark.parametrize(
    ("text", "reason", "stage"),
    [
        (None, "text is null", "validate"),
        (b"", "text is empty", "validate"),
        (b"\n ", "text is only white space", "validate"),
        (b"caf\xe9", "text is not valid UTF-8", "read"),
        (b"\xed\xa0\x80", "text is not valid UTF-8", "read"),
    ],
)
@pytest.mark.parametrize("encoding", ["plain", "dictionary"])
def test_a_bad_parquet_text_is_rejected_with_its_reason(tmp_path, text, reason, stage, encoding):
    texts = binary_as_string(b"a", text, b"\x00 control \x07 characters")
    if encoding == "dictionary":
        texts = texts.dictionary_encode()
    path = parquet(tmp_path / "a.parquet", id=[1, 7, 2], text=texts)
    assert only_reject(path, pinned()) == Reject("7", 1, reason, stage)


def test_a_bad_parquet_id_is_rejected(tmp_path):
    ids = binary_as_string(b"a", None, b"\xffb", b"d")
    path = parquet(tmp_path / "a.parquet", id=ids, text=["a", "b", "c", "d"])
    columns = columns_of(path)
    (batch,) = batches_of(path, columns)
    assert batch.rejects == [
        Reject(None, 1, "id is null", "validate"),
        Reject("\\xffb", 2, "column 'id' is not valid UTF-8", "read"),
    ]
    assert batch.carried["id"].to_pylist() == ["a", "d"]
    assert batch.rows == [0, 3]


@pytest.mark.parametrize("nested", [False, True])
def test_a_bad_parquet_pass_through_string_is_rejected_alone(tmp_path, nested):
    tags = binary_as_string(b"a", b"\xff", b"c")
    if nested:
        tags = pa.ListArray.from_arrays([0, 1, 2, 3], tags)
    path = parquet(tmp_path / "a.parquet", id=[1, 7, 2], text=["a", "b", "c"], tag=tags)
    columns = columns_of(path, "tag")
    assert only_reject(path, columns) == Reject("7", 1, "column 'tag' is not valid UTF-8", "read")
    (batch,) = batches_of(path, columns)
    batch.carried.validate(full=True)


def test_ids_of_any_flat_type_are_named_in_rejects(tmp_path):
    from decimal import Decimal

    for number, ids in enumerate(
        [
            pa.array([1_700_000_000_000_000_001], pa.timestamp("ns")),
            pa.array([Decimal("1.10")], pa.decimal128(5, 2)),
            pa.array([b"\x00\xff"], pa.binary()),
            pa.array([2.5], pa.float32()),
        ]
    ):
        path = parquet(tmp_path / f"{number}.parquet", id=ids, text=pa.array([None], pa.string()))
        assert (
            only_reject(path, columns_of(path)).id
            == [
                "2023-11-14 22:13:20.000000001",
                "1.10",
                "\x00\\xff",
                "2.5",
            ][number]
        )


def test_control_characters_nul_and_a_megabyte_are_texts_as_they_stand(tmp_path):
    texts = ["\x00", "bell \x07", "x" * 2**20, "\u200b", "é漢😀"]
    path = jsonl(tmp_path / "a.jsonl", *({"id": 1, "text": text} for text in texts))
    assert [t for batch in batches_of(path, pinned()) for t in batch.texts] == texts
    path = parquet(tmp_path / "a.parquet", id=[1] * 5, text=texts)
    assert [t for batch in batches_of(path, pinned()) for t in batch.texts] == texts


# Several text columns


@pytest.mark.parametrize(
    ("title", "body", "expected"),
    [
        ("T", "B", "T B"),
        ("T", None, "T"),
        (None, "B", "B"),
        ("", "B", "B"),
        ("T ", " B", "T   B"),
        (None, None, "text is null"),
        ("", None, "text is empty"),
        ("", "", "text is empty"),
        (" ", None, "text is only white space"),
        (" ", " ", "text is only white space"),
    ],
)
@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_text_columns_are_joined_by_a_space(tmp_path, name, title, body, expected):
    path = tmp_path / name
    if name == "a.parquet":
        strings = {"title": pa.array([title], pa.string()), "body": pa.array([body], pa.string())}
        parquet(path, id=[1], **strings)
    else:
        jsonl(path, {"id": 1, "title": title, "body": body})
    (batch,) = batches_of(path, pinned(text=("title", "body")))
    assert [*batch.texts, *(reject.reason for reject in batch.rejects)] == [expected]


def test_one_part_that_is_no_text_rejects_the_row(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"id": 1, "title": 3, "body": "B"})
    reject = only_reject(path, pinned(text=("title", "body")))
    assert reject.reason == "text is not a string (found number)"


def test_a_text_column_can_be_carried_too(tmp_path):
    path = parquet(tmp_path / "a.parquet", id=[1], text=["a"])
    (batch,) = batches_of(path, columns_of(path, "text"))
    assert batch.carried.to_pylist() == [{"id": 1, "text": "a"}]


# Pass-through values


@pytest.mark.parametrize(
    ("data_type", "value", "reason"),
    [
        (pa.int64(), 1.5, "column 'x': expected int64, found float 1.5"),
        (pa.float64(), True, "column 'x': expected double, found bool True"),
        (pa.float64(), 2**60 + 1, f"column 'x': expected double, found int {2**60 + 1}"),
        (pa.string(), 1, "column 'x': expected string, found int 1"),
        (pa.bool_(), 0, "column 'x': expected bool, found int 0"),
        (pa.string(), "\udc00", "column 'x' has a lone surrogate"),
        (pa.int64(), "y" * 99, f"column 'x': expected int64, found str '{'y' * 39}..."),
        (pa.list_(pa.int64()), [1, "a"], "column 'x': expected list<item: int64>, found list"),
        (
            pa.struct([("a", pa.int64())]),
            {"a": 1, "b": 2},
            "column 'x': expected struct<a: int64>, found dict {'a': 1, 'b': 2}",
        ),
    ],
)
def test_a_value_that_does_not_fit_its_pinned_type_is_rejected_not_converted(
    tmp_path, data_type, value, reason
):
    path = jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "a"}, {"id": 7, "text": "b", "x": value})
    reject = only_reject(path, pinned(("x", data_type)))
    assert (reject.id, reject.row, reject.stage) == ("7", 1, "validate")
    assert reject.reason.startswith(reason)


def test_values_that_fit_are_carried_and_an_absent_key_is_null(tmp_path):
    kinds = {
        "i": (pa.int64(), 5),
        "d": (pa.float64(), 2),
        "s": (pa.string(), "é"),
        "l": (pa.list_(pa.int64()), [1, None]),
        "o": (pa.struct([("a", pa.int64()), ("b", pa.string())]), {"a": 1}),
    }
    first = {"id": 1, "text": "a"} | {name: value for name, (_, value) in kinds.items()}
    path = jsonl(tmp_path / "a.jsonl", first, {"id": 2, "text": "b"})
    columns = pinned(*((name, data_type) for name, (data_type, _) in kinds.items()))
    (batch,) = batches_of(path, columns)
    found = batch.carried.drop_columns(["id"]).to_pylist()
    assert found[0] == {"i": 5, "d": 2.0, "s": "é", "l": [1, None], "o": {"a": 1, "b": None}}
    assert set(found[1].values()) == {None}


# Units, batches and conservation

ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from([1, 2, None, "x", 2**70])},
        optional={
            "text": st.sampled_from(["a", "é", "", " ", None, 3, "\ud800", "long " * 50]),
            "n": st.sampled_from([1.5, 1, None, "x", "\ud800"]),
        },
    ),
    max_size=60,
)


@ON_DISK
@given(
    rows=ROWS, unit_bytes=st.integers(1, 400), batch_rows=st.integers(1, 20), skip=st.integers(0, 5)
)
def test_every_json_row_is_a_document_or_a_reject_exactly_once(
    tmp_path, rows, unit_bytes, batch_rows, skip
):
    path = jsonl(tmp_path / "a.jsonl", *rows)
    columns = pinned(("n", pa.float64()))
    total = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "BATCH_ROWS", batch_rows)
        for unit in units_of(path, unit_bytes):
            batches = list(read_documents(unit, columns))
            count = check_conservation(batches)
            total += count
            rest = list(read_documents(unit, columns, skip_rows=skip))
            assert check_conservation(rest, first=skip) == max(skip, count)
            assert [text for batch in rest for text in batch.texts] == [
                text
                for batch in batches
                for row, text in zip(batch.rows, batch.texts, strict=True)
                if row >= skip
            ]
    assert total == len(rows)


PARQUET_TEXT = st.sampled_from([None, b"", b" ", b"a", "é".encode(), b"\xff", b"x" * 3000])


@ON_DISK
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([None, b"i", b"\xfe"]), PARQUET_TEXT, PARQUET_TEXT), max_size=50
    ),
    group_rows=st.integers(1, 20),
    unit_bytes=st.integers(1, 2000),
    skip=st.integers(0, 30),
)
def test_every_parquet_row_is_a_document_or_a_reject_exactly_once(
    tmp_path, rows, group_rows, unit_bytes, skip
):
    arrays = [binary_as_string(*(row[at] for row in rows)) for at in range(3)]
    table = pa.table(arrays, names=["id", "text", "tag"])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group_rows)
    columns = columns_of(tmp_path, "tag")
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "BATCH_BYTES", 4000)
        for unit in units_of(tmp_path, unit_bytes):
            batches = list(read_documents(unit, columns))
            assert check_conservation(batches) == unit.rows
            found += [unit.first_row + row for batch in batches for row in batch.rows]
            rest = list(read_documents(unit, columns, skip_rows=skip))
            assert check_conservation(rest, first=skip) == max(skip, unit.rows)
            for batch in batches:
                batch.carried.validate(full=True)
    assert found == [
        position
        for position, (name, text, tag) in enumerate(rows)
        if name == b"i" and text in (b"a", "é".encode(), b"x" * 3000) and tag != b"\xff"
    ]


@ON_DISK
@given(rows=st.lists(st.tuples(st.text("a,\"\n\r '", max_size=5), st.text("xé \n", max_size=5))))
def test_every_csv_row_comes_back_as_it_was_written(tmp_path, rows):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerows([("id", "text"), *rows])
    path = tmp_path / "a.csv"
    path.write_bytes(buffer.getvalue().encode())
    columns = CorpusColumns("id", ("text",), pa.schema([("id", pa.string())]))
    batches = batches_of(path, columns)
    assert check_conservation(batches) == len(rows)
    found = [
        (name, text)
        for batch in batches
        for name, text in zip(batch.carried["id"].to_pylist(), batch.texts, strict=True)
    ]
    assert found == [(name, text) for name, text in rows if name and text and not text.isspace()]


def test_a_batch_holds_at_most_1024_rows(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", *({"id": n, "text": "t"} for n in range(2500)))
    batches = batches_of(path, pinned())
    assert [batch.row_stop - batch.row_start for batch in batches] == [1024, 1024, 452]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_large_texts_make_small_batches(tmp_path, name):
    texts = ["small"] * 30 + [f"{number}" * 2**20 for number in range(10, 50)] + ["small"] * 30
    path = tmp_path / name
    if name == "a.jsonl":
        jsonl(path, *({"id": 1, "text": text} for text in texts))
    else:
        parquet(path, id=[1] * len(texts), text=texts)
    batches = batches_of(path, pinned())
    assert [text for batch in batches for text in batch.texts] == texts
    assert max(sum(map(len, batch.texts)) for batch in batches) <= 8 * 2**20 + 2 * 2**20


def test_an_unreadable_unit_is_one_reject_for_the_whole_file():
    source = Source("/a.parquet", "v", 9, Format.PARQUET)
    unit = WorkUnit(source, RangeKind.UNREADABLE, 0, 0, None, None, 9, reason="no footer")
    (batch,) = read_documents(unit, pinned())
    assert (batch.row_start, batch.row_stop, batch.texts) == (0, 0, [])
    assert batch.carried.schema == pinned().carried
    assert batch.rejects == [Reject(None, None, "no footer", "read")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv", "a.jsonl.gz"])
def test_an_empty_file_gives_no_batches(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert batches_of(tmp_path / name, columns_of(tmp_path / name)) == []


def test_rows_before_a_truncation_are_given_before_the_error(tmp_path):
    content = "".join(
        json.dumps({"id": number, "text": f"text {number * 7919}"}) + "\n" for number in range(9000)
    )
    packed = gzip.compress(content.encode())
    packed = packed[: len(packed) // 2]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed)
    (unit,) = units_of(path)
    batches: list[DocumentBatch] = []
    with pytest.raises(UnreadableSourceError, match="after row") as error:
        batches.extend(read_documents(unit, pinned()))
    count = check_conservation(batches)
    decodable = zlib.decompressobj(wbits=31).decompress(packed)
    assert decodable[:-9000].count(b"\n") <= count <= decodable.count(b"\n")
    assert count % 1024 != 0  # the last, smaller batch was not held back
    assert f"after row {count} " in str(error.value)


def test_a_file_that_vanished_is_a_changed_source(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "a"})
    columns, (unit,) = columns_of(path), units_of(path)
    path.unlink()
    with pytest.raises(SourceChangedError):
        list(read_documents(unit, columns))
