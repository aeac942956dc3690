"""Raw rows of each format: every line once, whatever the range, the compression or the damage."""

from __future__ import annotations

import errno
import gzip
import io
import json
from itertools import pairwise
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3fs.utils import FileExpired

from encoder.errors import InvalidInputError, StorageError
from pipelines.errors import SourceChangedError, UnreadableSourceError
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.plan import plan_units
from pipelines.source.readers import csv_rows as csv_rows_module
from pipelines.source.readers import lines
from pipelines.source.readers.csv_rows import read_csv, read_csv_header
from pipelines.source.readers.files import guarded, open_stream, translated
from pipelines.source.readers.lines import read_jsonl, read_lines, read_text
from pipelines.source.readers.parquet import BATCH_BYTES, read_parquet
from pipelines.source.readers.raw_row import RawRow
from pipelines.source.sources import list_sources
from pipelines.source.units import Format, RangeKind, Source, WorkUnit

ON_DISK = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
COLUMNS = CorpusColumns("id", ("text",), pa.schema([("id", pa.int64())]))


def source_of(path: Path, content: bytes | None = None) -> Source:
    if content is not None:
        path.write_bytes(content)
    return list_sources([str(path)], None)[0]


def zstd(content: bytes) -> bytes:
    # As the zstd command does; without it a flipped byte may decode to another one unseen.
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


# Lines and byte ranges

CONTENT = st.lists(
    st.sampled_from([b"a", b"\n", b"\r\n", b"\r", b"", "é漢😀".encode(), b"longer line ", b"\x00"]),
    max_size=40,
).map(b"".join)


def expected_lines(content: bytes) -> list[tuple[int, bytes]]:
    """The definition: split at newlines, the rest counts if it is not empty."""
    expected, offset = [], 0
    pieces = content.split(b"\n")
    for number, piece in enumerate(pieces):
        if number < len(pieces) - 1:
            expected.append((offset, piece.removesuffix(b"\r")))
        elif piece:
            expected.append((offset, piece))
        offset += len(piece) + 1
    return expected


@ON_DISK
@given(content=CONTENT, unit_bytes=st.integers(1, 30))
def test_units_of_any_size_hold_every_line_once_and_in_order(tmp_path, content, unit_bytes):
    source = source_of(tmp_path / "a.txt", content)
    units = plan_units([source], unit_bytes=unit_bytes, tolerate_unreadable=False)
    found = [read_lines(source, unit.start, unit.stop) for unit in units]
    for unit, pairs in zip(units, map(list, found), strict=True):
        assert all(unit.start <= offset < unit.stop for offset, _ in pairs)
    assert [pair for unit in units for pair in read_lines(source, unit.start, unit.stop)] == (
        expected_lines(content)
    )


@ON_DISK
@given(content=CONTENT, cuts=st.sets(st.integers(1, 200)), limit=st.integers(1, 7))
def test_ranges_cut_anywhere_agree_even_where_lines_are_too_long(tmp_path, content, cuts, limit):
    source = source_of(tmp_path / "a.txt", content)
    edges = [0, *sorted(cut for cut in cuts if cut < len(content)), len(content)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_LINE_BYTES", limit)
        parts = [
            pair for start, stop in pairwise(edges) for pair in read_lines(source, start, stop)
        ]
        assert parts == list(read_lines(source))
    assert [offset for offset, _ in parts] == [offset for offset, _ in expected_lines(content)]


def test_a_line_that_spans_many_units_belongs_to_the_first(tmp_path):
    source = source_of(tmp_path / "a.txt", b"x" * 95 + b"\nlast")
    counts = [len(list(read_lines(source, start, start + 10))) for start in range(0, 100, 10)]
    assert counts == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_a_line_over_the_limit_is_a_problem_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 10)
    source = source_of(tmp_path / "a.txt", b"x" * 35 + b"\nnext\n")
    first, second = read_text(source, "id", "text")
    assert first.problem.startswith("line is longer than")
    assert (second.values["text"], second.problem) == ("next", "")


@pytest.mark.parametrize("content", [b"a\nb\n", b"a\r\nb", b"\xef\xbb\xbfa\nb"])
def test_newlines_carriage_returns_and_a_byte_order_mark_are_no_text(tmp_path, content):
    rows = list(read_text(source_of(tmp_path / "a.txt", content), "id", "text"))
    assert [row.values["text"] for row in rows] == ["a", "b"]


def test_the_id_of_a_line_is_where_it_begins(tmp_path):
    source = source_of(tmp_path / "a.txt", "é\nb\n".encode())
    assert [row.values["id"] for row in read_text(source, "id", "text")] == [
        f"{source.uri}:0",
        f"{source.uri}:3",
    ]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
def test_offsets_in_a_compressed_file_count_decompressed_bytes(tmp_path, name):
    pack = gzip.compress if name.endswith("gz") else zstd
    source = source_of(tmp_path / name, pack(b"one\ntwo\n"))
    assert list(read_lines(source)) == [(0, b"one"), (4, b"two")]


# Compression


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("zst", zstd)])
class TestCompression:
    content = b"".join(b'{"id": %d}\n' % number for number in range(50_000))

    def test_several_members_are_one_stream(self, tmp_path, ending, pack):
        packed = pack(self.content) + pack(b"") + pack(self.content)
        with open_stream(source_of(tmp_path / f"a.jsonl.{ending}", packed)) as stream:
            assert stream.read() == self.content * 2

    @pytest.mark.parametrize("cut", [1, 4, 9, 1000])
    def test_a_truncated_file_breaks_with_one_line_that_says_after_which_row(
        self, tmp_path, ending, pack, cut
    ):
        source = source_of(tmp_path / f"a.jsonl.{ending}", pack(self.content)[:-cut])
        rows: list[RawRow] = []
        with pytest.raises(UnreadableSourceError) as error:
            rows.extend(guarded(read_jsonl(source), source.uri, lambda row: 1))
        message = str(error.value)
        assert f"after row {len(rows)} " in message
        assert source.uri in message
        assert "\n" not in message

    def test_a_cut_between_two_members_cannot_be_seen_but_one_inside_is(
        self, tmp_path, ending, pack
    ):
        source = source_of(tmp_path / f"a.jsonl.{ending}", pack(b"{}\n") + pack(b"{}\n")[:7])
        with pytest.raises(UnreadableSourceError):
            list(guarded(read_jsonl(source), source.uri, lambda row: 1))

    def test_damage_in_the_middle_is_found(self, tmp_path, ending, pack):
        packed = bytearray(pack(self.content))
        middle = len(packed) // 2
        packed[middle : middle + 50] = bytes(50)
        source = source_of(tmp_path / f"a.jsonl.{ending}", bytes(packed))
        with pytest.raises(UnreadableSourceError):
            list(guarded(read_jsonl(source), source.uri, lambda row: 1))

    @pytest.mark.parametrize("content", [b"plain text\n", b"\x00" * 100])
    def test_a_file_that_is_not_compressed_at_all_is_unreadable(
        self, tmp_path, ending, pack, content
    ):
        source = source_of(tmp_path / f"a.jsonl.{ending}", content)
        with pytest.raises(UnreadableSourceError, match="after row 0"):
            list(guarded(read_jsonl(source), source.uri, lambda row: 1))

    def test_an_empty_file_has_no_rows(self, tmp_path, ending, pack):
        assert list(read_jsonl(source_of(tmp_path / f"a.jsonl.{ending}", b""))) == []
        assert list(read_jsonl(source_of(tmp_path / f"b.jsonl.{ending}", pack(b"")))) == []


# JSON lines


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "line is empty"),
        (b"  \t", "line is empty"),
        (b"{", "line is not valid JSON"),
        (b"{'id': 1}", "line is not valid JSON"),
        (b'{"id": 1} {"id": 2}', "line is not valid JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "line is not valid JSON"),
        (b"[" * 100_000, "line is not valid JSON"),
        (b"[1, 2]", "line is not a JSON object"),
        (b"null", "line is not a JSON object"),
        (b'{"text": "\xff"}', "line is not valid UTF-8"),
        (b'{"text": "\xed\xa0\x80"}', "line is not valid UTF-8"),
    ],
)
def test_a_line_that_is_no_json_object_says_why(tmp_path, line, problem):
    rows = list(read_jsonl(source_of(tmp_path / "a.jsonl", line + b'\n{"id": 1}\n')))
    assert rows[0].problem == problem
    assert rows[1].values == {"id": 1}


def test_a_byte_order_mark_does_not_break_the_first_line(tmp_path):
    (row,) = read_jsonl(source_of(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"id": 1}\n'))
    assert row.values == {"id": 1}


# CSV


def csv_rows(path: Path, content: bytes) -> list[RawRow]:
    return list(read_csv(source_of(path / "a.csv", content), ["id", "text"]))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (b'1,"two\nlines"', "two\nlines"),
        (b'1,"two\r\nlines"', "two\r\nlines"),
        (b'1,"a ""quoted"" word, and a comma"', 'a "quoted" word, and a comma'),
        (b"1,nul\x00byte", "nul\x00byte"),
        (b"1,", ""),
        ("1,é漢".encode(), "é漢"),
    ],
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_csv_fields_are_read_as_they_were_written(tmp_path, row, text, newline):
    content = newline.join([b"id,text", row, b"2,next", b""])
    assert [row.values for row in csv_rows(tmp_path, content)] == [
        {"id": "1", "text": text},
        {"id": "2", "text": "next"},
    ]


def test_a_csv_text_of_a_megabyte_is_read(tmp_path):
    (row,) = csv_rows(tmp_path, b"id,text\n1," + b"x" * 2**20)
    assert len(row.values["text"]) == 2**20


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    assert csv_rows(tmp_path, b"\xef\xbb\xbfid,text\n1,a\n")[0].values == {"id": "1", "text": "a"}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"1", "row has too few fields"),
        (b"1,a,b", "row has too many fields"),
        (b"", "row is empty"),
        (b'1,"a"b', "row is not valid CSV"),
        (b"1,\xff", "row is not valid UTF-8"),
    ],
)
def test_a_bad_csv_row_says_why_and_the_next_is_read(tmp_path, row, problem):
    first, second = csv_rows(tmp_path, b"id,text\n" + row + b"\n2,b\n")
    assert first.problem == problem
    assert second.values == {"id": "2", "text": "b"}


def test_a_quote_that_is_never_closed_names_its_line(tmp_path):
    source = source_of(tmp_path / "a.csv", b'id,text\n1,a\n2,"open\n3,b\n4,c\n')
    rows = read_csv(source, ["id", "text"])
    assert next(rows).values["id"] == "1"
    with pytest.raises(UnreadableSourceError, match="line 3 has a quote that is not closed"):
        next(rows)


def test_a_csv_row_is_no_longer_than_a_line_may_be_however_many_lines_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows_module, "MAX_LINE_BYTES", 100)
    lines_of_one_row = b'"' + b'field\n","' * 12 + b'"\n'
    source = source_of(tmp_path / "a.csv", b"id,text\n1,a\n" + lines_of_one_row + b"2,b\n")
    rows = read_csv(source, ["id", "text"])
    assert next(rows).values == {"id": "1", "text": "a"}
    with pytest.raises(UnreadableSourceError, match=r"a\.csv: the row on line 14 is longer than"):
        next(rows)


def test_a_long_csv_line_is_no_row_and_many_short_ones_are(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows_module, "MAX_LINE_BYTES", 100)
    assert len(csv_rows(tmp_path, b"id,text\n" + b'1,"two\nlines"\n' * 50)) == 50
    assert len(csv_rows(tmp_path, b"id,text\n1," + b"x" * 98)) == 1
    with pytest.raises(UnreadableSourceError, match="the row on line 2 is longer than"):
        csv_rows(tmp_path, b"id,text\n1," + b"x" * 99)


def test_an_empty_csv_has_no_rows_and_no_header(tmp_path):
    source = source_of(tmp_path / "a.csv", b"")
    assert read_csv_header(source) is None
    assert list(read_csv(source, ["id"])) == []


@pytest.mark.parametrize("header", [b"id,body", b"id,text,text", b"1,hello"])
def test_a_header_without_the_column_is_refused_with_what_was_found(tmp_path, header):
    with pytest.raises(InvalidInputError, match=r"a\.csv.*'(id|text)', found"):
        csv_rows(tmp_path, header + b"\n1,a\n")


def test_a_csv_that_is_truncated_in_gzip_gives_its_rows_first(tmp_path):
    content = b"id,text\n" + b"".join(b"%d,text\n" % number for number in range(50_000))
    source = source_of(tmp_path / "a.csv.gz", gzip.compress(content)[:-200])
    rows: list[RawRow] = []
    with pytest.raises(UnreadableSourceError, match="after row"):
        rows.extend(guarded(read_csv(source, ["id"]), source.uri, lambda row: 1))
    assert rows[0].values == {"id": "0"}


# Parquet


def parquet_unit(path: Path, table: pa.Table, **options: object) -> WorkUnit:
    pq.write_table(table, path, **options)
    return plan_units([source_of(path)], unit_bytes=10**9, tolerate_unreadable=False)[0]


def table_of(rows: int) -> pa.Table:
    return pa.table({"id": range(rows), "text": [f"text {n}" for n in range(rows)]})


@given(skip=st.integers(0, 70))
@ON_DISK
def test_skipped_parquet_rows_are_the_first_ones(tmp_path, skip):
    unit = parquet_unit(tmp_path / "a.parquet", table_of(60), row_group_size=7)
    batches = list(read_parquet(unit, COLUMNS, skip))
    assert [i for batch in batches for i in batch["id"].to_pylist()] == list(range(60))[skip:]


def test_a_batch_is_bounded_in_rows_and_by_the_mean_size_of_a_row(tmp_path):
    small = parquet_unit(tmp_path / "small.parquet", table_of(5000))
    assert max(batch.num_rows for batch in read_parquet(small, COLUMNS, 0)) == 1024
    noise = [f"{number:08d}" * 125_000 for number in range(40)]
    table = pa.table({"id": range(40), "text": noise})
    large = parquet_unit(tmp_path / "large.parquet", table, use_dictionary=False)
    assert max(batch.nbytes for batch in read_parquet(large, COLUMNS, 0)) <= 8 * 2**20


def test_only_the_needed_columns_are_read(tmp_path):
    unit = parquet_unit(tmp_path / "a.parquet", table_of(5).append_column("c", [[1.0] * 5]))
    assert next(read_parquet(unit, COLUMNS, 0)).schema.names == ["text", "id"]


@pytest.mark.parametrize(
    "stored",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
)
def test_variants_of_a_string_column_are_the_same_column(tmp_path, stored):
    text = pa.array(["a", None, "b"]).cast(stored)
    unit = parquet_unit(tmp_path / "a.parquet", pa.table({"id": [1, 2, 3], "text": text}))
    columns = CorpusColumns("text", ("text",), pa.schema([("text", pa.string())]))
    (batch,) = read_parquet(unit, columns, 0)
    assert batch["text"].to_pylist() == ["a", None, "b"]
    assert batch["text"].type == pa.string()


def test_another_type_than_the_corpus_has_names_file_column_and_both_types(tmp_path):
    table = table_of(3).set_column(0, "id", [["1", "2", "3"]])
    unit = parquet_unit(tmp_path / "a.parquet", table)
    with pytest.raises(InvalidInputError, match=r"a\.parquet.*int64.*'id'.*string"):
        list(read_parquet(unit, COLUMNS, 0))


def test_a_missing_parquet_column_names_the_columns_found(tmp_path):
    unit = parquet_unit(tmp_path / "a.parquet", table_of(3).rename_columns(["id", "body"]))
    with pytest.raises(InvalidInputError, match=r"a\.parquet.*'text', found 'id', 'body'"):
        list(read_parquet(unit, COLUMNS, 0))


def test_a_text_column_of_numbers_is_refused(tmp_path):
    unit = parquet_unit(tmp_path / "a.parquet", pa.table({"id": [1], "text": [2]}))
    with pytest.raises(InvalidInputError, match="strings in text column 'text', found int64"):
        list(read_parquet(unit, COLUMNS, 0))


@pytest.mark.parametrize("checksum", [True, False])
def test_a_damaged_page_breaks_after_the_rows_before_it(tmp_path, checksum):
    unit = parquet_unit(
        tmp_path / "a.parquet",
        table_of(20_000),
        row_group_size=10_000,
        compression="zstd",
        use_dictionary=False,
        write_page_checksum=checksum,
    )
    chunk = pq.read_metadata(unit.source.uri).row_group(1).column(1)
    content = bytearray(Path(unit.source.uri).read_bytes())
    damage = chunk.data_page_offset + chunk.total_compressed_size // 2
    content[damage : damage + 64] = bytes(64)
    Path(unit.source.uri).write_bytes(bytes(content))
    batches: list[pa.RecordBatch] = []
    with pytest.raises(UnreadableSourceError, match=r"a\.parquet.*after row") as error:
        batches.extend(guarded(read_parquet(unit, COLUMNS, 0), unit.label, lambda b: b.num_rows))
    assert sum(batch.num_rows for batch in batches) >= 9_000
    assert "\n" not in str(error.value)


def test_a_file_with_fewer_row_groups_than_planned_was_changed(tmp_path):
    unit = parquet_unit(tmp_path / "a.parquet", table_of(30), row_group_size=10)
    pq.write_table(table_of(10), tmp_path / "a.parquet")
    with pytest.raises(SourceChangedError, match="row groups"):
        list(read_parquet(unit, COLUMNS, 0))


def test_small_rows_come_1024_at_a_time(tmp_path):
    unit = parquet_unit(tmp_path / "a.parquet", table_of(2500), row_group_size=1500)
    assert [batch.num_rows for batch in read_parquet(unit, COLUMNS, 0)] == [1024, 1024, 452]


@pytest.mark.parametrize(
    "stored",
    [
        {"use_dictionary": True},
        {"use_dictionary": False, "column_encoding": {"id": "PLAIN", "text": "DELTA_BYTE_ARRAY"}},
    ],
    ids=["dictionary", "prefixes"],
)
def test_a_text_that_is_stored_once_for_all_rows_makes_small_batches(tmp_path, stored):
    table = pa.table({"id": range(1024), "text": ["word " * 20_000] * 1024})
    path = tmp_path / "a.parquet"
    unit = parquet_unit(path, table, compression="zstd", **stored)
    assert path.stat().st_size < 100_000
    batches = list(read_parquet(unit, COLUMNS, 0))
    assert sum(batch.num_rows for batch in batches) == 1024
    assert max(batch.nbytes for batch in batches) <= BATCH_BYTES


@pytest.fixture
def batch_rows_asked_for(monkeypatch) -> dict[str, int]:
    """Rows at a time that a column is asked for."""
    asked: dict[str, int] = {}
    read = pq.ParquetFile.iter_batches

    def note(file, batch_size, *, row_groups, columns=None, **options):
        if columns:
            asked.update(dict.fromkeys(columns, batch_size))
        return read(file, batch_size, row_groups=row_groups, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", note)
    return asked


def categorical(texts: list[str]) -> pa.Table:
    return pa.table({"id": range(len(texts)), "text": pa.array(texts).dictionary_encode()})


def test_a_dictionary_is_not_copied_for_every_few_rows(tmp_path, batch_rows_asked_for):
    texts = [f"text {number % 1999}" for number in range(3000)]
    unit = parquet_unit(tmp_path / "a.parquet", categorical(texts), row_group_size=1100)
    batches = list(read_parquet(unit, COLUMNS, 10))
    assert batch_rows_asked_for == {"text": 1024, "id": 64}
    assert [text for batch in batches for text in batch["text"].to_pylist()] == texts[10:]
    assert [i for batch in batches for i in batch["id"].to_pylist()] == list(range(10, 3000))
    assert max(batch.num_rows for batch in batches) == 1024


def test_a_large_value_of_a_dictionary_makes_small_batches(tmp_path):
    unit = parquet_unit(tmp_path / "a.parquet", categorical(["word " * 20_000] * 1024))
    batches = list(read_parquet(unit, COLUMNS, 0))
    assert sum(batch.num_rows for batch in batches) == 1024
    assert max(batch.nbytes for batch in batches) <= BATCH_BYTES


def test_a_large_column_that_is_not_read_makes_no_small_batches(tmp_path, batch_rows_asked_for):
    table = table_of(100).append_column("image", [[bytes(2**20)] * 100])
    unit = parquet_unit(tmp_path / "a.parquet", table, use_dictionary=False, compression="zstd")
    list(read_parquet(unit, COLUMNS, 0))
    assert batch_rows_asked_for == {"id": 64, "text": 64}


# Whose fault an error is


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.csv"])
def test_a_file_that_is_gone_is_a_changed_source(tmp_path, name):
    source = Source(str(tmp_path / name), "v", 1, Format.TEXT, "gzip" if "gz" in name else None)
    unit = WorkUnit(source, RangeKind.ROW_GROUPS, 0, 1, None, None, 1)
    reader = {
        "parquet": lambda: read_parquet(unit, COLUMNS, 0),
        "jsonl": lambda: read_jsonl(source),
        "csv": lambda: read_csv(source, ["id"]),
    }[name.split(".")[1]]
    with pytest.raises(SourceChangedError, match=name):
        list(guarded(reader(), source.uri, lambda row: 1))


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "denied"),
        OSError(5, "input/output error"),
        ConnectionResetError("reset"),
        TimeoutError("slow"),
        pa.ArrowMemoryError("out of memory"),
    ],
)
def test_an_error_of_the_store_is_not_the_fault_of_the_file(error):
    assert translated(error, "a.parquet", rows_before=3) is error


@pytest.mark.parametrize(
    "error", [OSError("Corrupt snappy data"), pa.ArrowInvalid("bad\npage"), pa.ArrowException("x")]
)
def test_an_error_of_the_decoder_is_one_line_about_the_file(error):
    result = translated(error, "a.parquet", rows_before=3)
    assert isinstance(result, UnreadableSourceError)
    assert "a.parquet" in str(result)
    assert "after row 3" in str(result)
    assert "\n" not in str(result)


# A store that is not local


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv"])
def test_remote_files_read_as_local_ones_do(tmp_path, name):
    table = table_of(3000)
    local = tmp_path / name
    rows = table.to_pylist()
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name == "a.parquet":
        pq.write_table(table, local)
    elif name == "a.csv":
        local.write_text("id,text\n" + "".join(f"{r['id']},{r['text']}\n" for r in rows))
    else:
        pack = {"gz": gzip.compress, "zst": zstd}.get(name.rsplit(".", 1)[1], bytes)
        local.write_bytes(pack(content))
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/readers/{name}", local.read_bytes())
    try:
        (source,) = list_sources([f"memory://readers/{name}"], None)
        units = plan_units([source], unit_bytes=10_000, tolerate_unreadable=False)
        found = [row for unit in units for row in ids_of(unit)]
    finally:
        memory.rm("/readers", recursive=True)
    assert [int(row) for row in found] == list(range(3000))


class Forbidding(io.BytesIO):
    """A file that its store stops to give, in the words of gcsfs: an OSError without errno."""

    def __init__(self, content: bytes, reads: int) -> None:
        super().__init__(content)
        self.left = reads

    def read(self, size: int | None = -1) -> bytes:
        if not self.left:
            raise OSError("Forbidden: b/x\ncaller does not have storage.objects.get access")
        self.left -= 1
        return super().read(size)

    def readinto(self, buffer: memoryview) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


@pytest.mark.parametrize("reads", [0, 1], ids="after {} reads".format)
@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv"])
def test_a_file_that_its_store_forbids_to_read_is_none_that_cannot_be_decoded(
    monkeypatch, name, reads
):
    sink = io.BytesIO()
    table = table_of(100_000)  # more than a buffer holds
    if name == "a.parquet":
        pq.write_table(table, sink)
    elif name == "a.csv":
        pyarrow.csv.write_csv(table, sink)
    else:
        sink.write("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode())
    pack = {"gz": gzip.compress, "zst": zstd}.get(name.rsplit(".", 1)[1], bytes)
    content = pack(sink.getvalue())
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/forbidden/{name}", content)
    try:
        (source,) = list_sources([f"memory://forbidden/{name}"], None)
        (unit,) = plan_units([source], unit_bytes=10**9, tolerate_unreadable=True)
        monkeypatch.setattr(type(memory), "open", lambda *_, **__: Forbidding(content, reads))
        with pytest.raises(StorageError, match=rf"cannot read {source.uri}: .*Forbidden.*; check"):
            list(guarded(iter(ids_of(unit)), source.uri, lambda row: 1))
    finally:
        memory.rm("/forbidden", recursive=True)


def ids_of(unit: WorkUnit) -> list[object]:
    if unit.source.format is Format.PARQUET:
        return [i for batch in read_parquet(unit, COLUMNS, 0) for i in batch["id"].to_pylist()]
    if unit.source.format is Format.CSV:
        return [row.values["id"] for row in read_csv(unit.source, ["id"])]
    stop = unit.stop if unit.kind is RangeKind.BYTES else None
    return [row.values["id"] for row in read_jsonl(unit.source, unit.start, stop)]


def test_a_store_that_asks_to_slow_down_does_not_count_as_a_changed_source():
    slow_down = OSError(errno.EBUSY, "Please reduce your request rate.")
    assert translated(slow_down, "s3://b/x", rows_before=3) is slow_down


def test_another_etag_than_when_the_file_was_opened_is_a_changed_source():
    found = translated(FileExpired("s3://b/x", "etag"), "s3://b/x", rows_before=3)
    assert isinstance(found, SourceChangedError)
