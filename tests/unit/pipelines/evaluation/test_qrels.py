"""Judgements are read line by line; a line that is not one is named."""

from __future__ import annotations

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from encoder.errors import InvalidInputError, StorageError
from pipelines.evaluation.qrels import read_qrels

HEADER = "query-id\tcorpus-id\tscore\n"


def read(folder, content: bytes | str):
    file = folder / "test.tsv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_qrels(str(file))


def test_scores_of_all_signs_and_windows_line_ends_are_read(tmp_path):
    assert read(tmp_path, "\ufeff" + HEADER.replace("\n", "\r\n") + "q\ta\t2\r\nq\tb\t-1\r\n") == {
        "q": {"a": 2, "b": -1}
    }


def test_blank_lines_are_no_judgements(tmp_path):
    assert read(tmp_path, HEADER + "q\ta\t1\n\nq\tb\t2\n\n") == {"q": {"a": 1, "b": 2}}


def test_whole_numbers_that_were_written_as_fractions_are_read(tmp_path):
    assert read(tmp_path, HEADER + "q\ta\t1.0\nq\tb\t-2.00\n") == {"q": {"a": 1, "b": -2}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("q\ta\t1\n", "line 1: expected the header"),
        (HEADER + "q\ta\n", "line 2: expected query-id, corpus-id, score"),
        (HEADER + "q\t0\ta\t1\n", "line 2: expected query-id, corpus-id, score"),
        (HEADER + "q\t\t1\n", "line 2: expected query-id, corpus-id, score"),
        (HEADER + "q\ta\t0.5\n", "line 2: expected a whole number from -1000 to 1000 as score"),
        (HEADER + "q\ta\t1_0\n", "line 2: expected a whole number from .* found '1_0'"),
        (HEADER + "q\ta\t1001\n", "line 2: expected a whole number from -1000 to 1000 as score"),
        (HEADER + f"q\ta\t{10**20}\n", "line 2: expected a whole number from -1000 to 1000"),
        (HEADER + "q\ta\t1\nq\ta\t1\n", "line 3: query 'q' and document 'a' were judged before"),
        (HEADER.encode() + b"q\t\xff\t1\n", "line 2: expected UTF-8"),
        (HEADER, "expected judgements, found none"),
        ("", "expected judgements, found none"),
    ],
)
def test_what_is_no_judgement_is_refused_with_its_line(tmp_path, content, says):
    with pytest.raises(InvalidInputError, match=says):
        read(tmp_path, content)


@pytest.mark.parametrize("method", [(MemoryFileSystem, "open"), (MemoryFile, "__next__")])
def test_a_store_that_refuses_is_one_line_that_says_what_to_check(monkeypatch, method):
    class HttpError(Exception):
        """gcsfs' for 429 and 5xx."""

    def refuse(*_: object, **__: object) -> None:
        raise HttpError("Service Unavailable, 503")

    MemoryFileSystem().pipe_file("/qrels/test.tsv", HEADER.encode())
    monkeypatch.setattr(*method, refuse)
    with pytest.raises(StorageError, match=r"read memory://qrels/test\.tsv: .*HttpError.*role"):
        read_qrels("memory://qrels/test.tsv")
