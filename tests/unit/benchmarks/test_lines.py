"""Lines are written whole and read back; what is no line is named."""

from __future__ import annotations

import pytest

from benchmarks.lines import Lines, read_lines


def test_lines_of_two_steps_make_one_file(tmp_path):
    file = tmp_path / "new" / "lines.jsonl"
    Lines("encode", file, {"threads": 2}).write("throughput", {"tokens": 1})
    Lines("limit", file, {}).write("best", {"round": 1})
    assert read_lines([file]) == [
        {"benchmark": "encode", "measures": "throughput", "tokens": 1, "threads": 2},
        {"benchmark": "limit", "measures": "best", "round": 1},
    ]


def test_without_a_file_lines_go_to_stdout(capsys):
    Lines("encode", None, {}).write("throughput", {"tokens": 1})
    assert capsys.readouterr().out.count("\n") == 1


def test_of_a_benchmark_that_measures_one_thing_a_line_says_the_benchmark_alone(tmp_path):
    file = tmp_path / "lines.jsonl"
    Lines("resume", file, {"machine": {}}).write("", {"shards": 3})
    assert file.read_text() == '{"benchmark": "resume", "shards": 3, "machine": {}}\n'
    assert read_lines([file])[0]["measures"] == ""


@pytest.mark.parametrize("text", ["{", "[]"])
def test_what_is_no_line_is_named_with_its_place(tmp_path, text):
    file = tmp_path / "lines.jsonl"
    file.write_text('{"benchmark": "encode", "measures": "x"}\n' + text + "\n")
    with pytest.raises(ValueError, match=r"lines\.jsonl:2"):
        read_lines([file])
