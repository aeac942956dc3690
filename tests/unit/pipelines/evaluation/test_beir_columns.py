"""Titles are embedded where any document has one, or nothing is."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoder.errors import InvalidInputError
from pipelines.evaluation.beir_columns import find_columns
from pipelines.source.sources import list_sources


def columns_of(folder, *, with_title: bool = True) -> tuple[str, ...]:
    sources = tuple(list_sources([str(folder)], None))
    return find_columns(sources, with_title=with_title).text_columns


def json_lines(folder, *rows: dict[str, object]):
    file = folder / "corpus.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def parquet(folder, *parts: dict[str, object]):
    for number, columns in enumerate(parts):
        pq.write_table(pa.table({"text": ["x"], **columns}), folder / f"part-{number}.parquet")
    return folder


PLAIN = [{"_id": f"d{number}", "text": "x"} for number in range(1200)]


def test_titles_that_begin_after_the_first_rows_are_refused_and_not_left_out(tmp_path):
    file = json_lines(tmp_path, *PLAIN, {"_id": "late", "title": "Cats", "text": "x"})
    with pytest.raises(InvalidInputError, match=r"row 1201 has a title .* empty where it has none"):
        columns_of(file)


def test_titles_of_a_later_file_alone_are_refused_and_not_left_out(tmp_path):
    folder = parquet(tmp_path, {"_id": ["a"]}, {"_id": ["b"], "title": ["Cats"]})
    with pytest.raises(InvalidInputError, match=r"part-1\.parquet has a title .*part-0\.parquet"):
        columns_of(folder)


@pytest.mark.parametrize("title", [["Cats"], 5])
def test_titles_that_are_no_strings_are_refused_and_not_left_out(tmp_path, title):
    folder = parquet(tmp_path, {"_id": ["a"], "title": [title]})
    with pytest.raises(InvalidInputError, match="expected strings in text column 'title'"):
        columns_of(folder)


def test_a_title_is_left_out_where_no_file_and_no_row_has_any(tmp_path):
    empty = {"_id": "late", "title": "", "text": "x"}
    assert columns_of(json_lines(tmp_path, *PLAIN, empty)) == ("text",)
    (tmp_path / "corpus.jsonl").unlink()
    assert columns_of(parquet(tmp_path, {"_id": ["a"]}, {"_id": ["b"]})) == ("text",)


def test_a_csv_files_header_says_whether_there_are_titles(tmp_path):
    file = tmp_path / "corpus.csv"
    file.write_text("_id,title,text\na,Cats,x\n", encoding="utf-8")
    assert columns_of(file) == ("title", "text")
    file.write_text("_id,text\na,x\n", encoding="utf-8")
    assert columns_of(file) == ("text",)


def test_the_titles_of_queries_are_no_part_of_them(tmp_path):
    file = json_lines(tmp_path, {"_id": "q", "title": "Cats", "text": "x"})
    assert columns_of(file, with_title=False) == ("text",)
