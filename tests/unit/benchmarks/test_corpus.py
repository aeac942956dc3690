"""A benchmark's texts are the same ones on every run and machine of one Python."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import corpus
from benchmarks.corpus import generated_texts, read_folder, sample, write_input
from pipelines.docstrings import standard_library


def test_generated_texts_are_as_long_as_debians_descriptions():
    words = [len(text.split()) for text in generated_texts(2000)]
    assert 45 <= np.median(words) <= 57
    assert 55 <= np.mean(words) <= 69


def test_generated_texts_are_always_the_same(monkeypatch):
    # A part of the standard library is read again in less time than all of it.
    monkeypatch.setattr(corpus, "standard_library", lambda: standard_library() / "asyncio")
    texts = generated_texts(500)
    corpus._words.cache_clear()
    assert texts == generated_texts(500)
    assert len({word for text in texts for word in text.split()}) > 500


def test_a_sample_comes_from_all_over_the_corpus_in_its_order():
    texts = [f"{i:04d}" for i in range(1000)]
    chosen = sample(texts, 100)
    assert chosen == sorted(chosen) == sample(texts, 100)
    assert len(set(chosen)) == 100
    assert int(chosen[0]) < 100
    assert int(chosen[-1]) > 900


def test_more_texts_than_there_are_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"at least 3 texts, found 2"):
        sample(["a", "b"], 3)


def test_json_lines_are_read_plain_and_compressed_in_the_order_of_their_names(tmp_path: Path):
    for name, text in (("b.jsonl", "second"), ("a.jsonl.gz", "first")):
        content = (
            json.dumps({"id": "1", "text": f"{text} \u2028 line"}, ensure_ascii=False) + "\n"
        ).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (tmp_path / "SOURCE.txt").write_text("not a text")
    assert read_folder(tmp_path) == ["first \u2028 line", "second \u2028 line"]


def test_a_folder_without_texts_is_refused_with_its_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        read_folder(tmp_path)


def test_the_input_is_cut_into_files_whose_ids_go_on(tmp_path: Path):
    write_input(["a", "b", "c"], tmp_path / "input", "parquet", rows_per_file=2)
    tables = [pq.read_table(file).to_pylist() for file in sorted((tmp_path / "input").iterdir())]
    assert tables == [
        [{"id": "000000", "text": "a"}, {"id": "000001", "text": "b"}],
        [{"id": "000002", "text": "c"}],
    ]
