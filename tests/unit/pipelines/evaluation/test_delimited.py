"""Columns of delimited files, and one line about what is wrong with a file."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from encoder.errors import InvalidInputError, StorageError
from pipelines.errors import UnreadableSourceError
from pipelines.evaluation.delimited import Separator, read_columns


def read(file: Path, *columns: str, separator: Separator = Separator.COMMA, quoted: bool = True):
    return read_columns(str(file), columns, separator=separator, quoted=quoted)


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "rows.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_columns_are_found_by_name_in_the_order_asked_for(tmp_path):
    file = written(tmp_path, "text,other,label\nhello,1,greeting\n\n")
    assert [row.values for row in read(file, "label", "text")] == [("greeting", "hello")]


def test_columns_are_found_by_position_where_there_is_no_header(tmp_path):
    file = written(tmp_path, "a\tb\tc\n")
    rows = read(file, "3", "1", separator=Separator.TAB)
    assert [row.values for row in rows] == [("c", "a")]


def test_quotes_enclose_a_value_only_where_that_is_said(tmp_path):
    file = written(tmp_path, '"one, two"\n')
    assert read(file, "1")[0].values == ("one, two",)
    assert read(file, "1", quoted=False)[0].values == ('"one',)


def test_a_row_says_where_it_stands(tmp_path):
    file = written(tmp_path, 'text\n"two\nlines"\nthird\n')
    assert [row.place for row in read(file, "text")] == [f"{file}, line 3", f"{file}, line 4"]


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path):
    file = written(tmp_path, b"\xef\xbb\xbftext\nhello\n")
    assert read(file, "text")[0].values == ("hello",)


def test_a_compressed_file_is_read(tmp_path):
    file = tmp_path / "rows.csv.gz"
    file.write_bytes(gzip.compress(b"text\nhello\n"))
    assert read(file, "text")[0].values == ("hello",)


def test_two_colons_are_part_of_a_name(tmp_path):
    # fsspec reads what stands behind them as another file system.
    file = tmp_path / "a::b.csv"
    file.write_text("text\nhello\n")
    assert read(file, "text")[0].values == ("hello",)


def test_a_protocol_that_nobody_knows_is_refused_in_one_line():
    with pytest.raises(InvalidInputError, match=r"input no://rows\.csv: .*no"):
        read_columns("no://rows.csv", ["text"], separator=Separator.COMMA, quoted=True)


def test_without_a_header_lines_may_have_more_columns_than_are_read(tmp_path):
    # As the STS Benchmark's have, whose last columns are links.
    file = written(tmp_path, "a,b\nc,d,link,link\n")
    assert [row.values for row in read(file, "2", "1")] == [("b", "a"), ("d", "c")]
    for columns in (["3"], ["1", "3"]):
        with pytest.raises(InvalidInputError, match=r"at least 3 columns, found 2 in .*line 1"):
            read(file, *columns)
    with pytest.raises(InvalidInputError, match="expected one column '0' in the first line"):
        read(file, "0")  # which is no position


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,text\na,b\n", "expected one column 'text' in the first line"),
        ("other\na\n", "expected one column 'text' in the first line of .* found 'other'"),
        ("", "expected one column 'text' in the first line of .* found nothing"),
        ("text\n", "expected rows in .* found none"),
        ("other,text\na,b\nc\n", "expected 2 columns, found 1 in .*, line 3"),
        ("text,label\na,x\nb, c,x\n", "expected 2 columns, found 3 in .*, line 3; .* quoted"),
    ],
)
def test_a_file_of_another_shape_is_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        read(written(tmp_path, content), "text")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"text\n\xff\xfe\n", b'text\n"open quote\n'])
def test_a_file_that_cannot_be_read_to_its_end_is_refused_in_one_line(tmp_path, content):
    with pytest.raises(UnreadableSourceError, match=r"found .*rows.csv: \w+") as caught:
        read(written(tmp_path, content), "text")
    assert "\n" not in str(caught.value)


def test_a_long_text_is_read_whole(tmp_path):
    (row,) = read(written(tmp_path, b"text\n" + b"x" * 200_000), "text")
    assert row.values == ("x" * 200_000,)


def test_a_missing_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(UnreadableSourceError, match=r"found .*rows.csv: FileNotFoundError"):
        read(tmp_path / "rows.csv", "text")


def test_a_damaged_compressed_file_is_refused_in_one_line(tmp_path):
    file = tmp_path / "rows.csv.gz"
    file.write_bytes(gzip.compress(b"text\n" + b"hello\n" * 1000)[:-20])
    with pytest.raises(UnreadableSourceError, match="EOFError"):
        read(file, "text")


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_bytes_that_changed_in_a_compressed_file_are_refused_in_one_line(tmp_path, suffix, pack):
    packed = bytearray(pack(b"text\n" + bytes(range(65, 91)) * 4000 + b"\n"))
    packed[len(packed) // 2 : len(packed) // 2 + 8] = b"\xff" * 8
    file = tmp_path / f"rows.csv.{suffix}"
    file.write_bytes(packed)
    with pytest.raises(UnreadableSourceError, match=r"Error|Bad"):
        read(file, "text")


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
@pytest.mark.parametrize("method", [(MemoryFileSystem, "open"), (MemoryFile, "read")])
def test_a_store_that_refuses_says_nothing_of_the_file(monkeypatch, method, name):
    class HttpError(Exception):
        """gcsfs' for 429 and 5xx."""

    def refuse(*_: object, **__: object) -> None:
        raise HttpError("Service Unavailable, 503")

    uri = f"memory://delimited/{name}"
    content = b"text\nhello\n"
    MemoryFileSystem().pipe_file(
        f"/delimited/{name}", gzip.compress(content) if name.endswith("gz") else content
    )
    (row,) = read_columns(uri, ["text"], separator=Separator.COMMA, quoted=True)
    assert row.values == ("hello",)
    monkeypatch.setattr(*method, refuse)
    with pytest.raises(StorageError, match=r"read memory://delimited/rows.*HttpError.*role"):
        read_columns(uri, ["text"], separator=Separator.COMMA, quoted=True)
