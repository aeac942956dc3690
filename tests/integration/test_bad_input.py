"""Bad input through the whole job, as a user runs it: no row is lost, every reject has its reason.

One run embeds a folder with a file of each format; the reasons themselves are tested one by one in
tests/unit/pipelines/test_documents.py.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipelines.embed_corpus import main
from support.fault_plan import FaultPlan
from support.jobs import arguments, error_lines
from support.outputs import OutputFolder, write_jsonl

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

MEGABYTE = "A megabyte of text. " * 52_429
POISON = "zebra"
"""A word at which the backend of these tests raises."""

# id -> (text as it stands in the line, reason or None where the row is embedded)
JSON_ROWS: dict[str, tuple[str, str | None]] = {
    "j-good": ('"a good row"', None),
    "j-null": ("null", "text is null"),
    "j-empty": ('""', "text is empty"),
    "j-blank": ('" \\t\\n "', "text is only white space"),
    "j-megabyte": (json.dumps(MEGABYTE), None),
    "j-surrogate": ('"a lone \\ud800 surrogate"', "text has a lone surrogate"),
    "j-control": ('"control \\u0000 \\u0007 characters"', None),
    "j-number": ("7", "text is not a string (found number)"),
    "j-list": ('["a"]', "text is not a string (found list)"),
    "j-poison": (f'"a {POISON} makes the backend raise"', "the model raised RuntimeError: kaboom"),
}
# Lines without an id that could be read, each with its reason.
JSON_LINES = {
    b"": "line is empty",
    b"{": "line is not valid JSON",
    b"[1]": "line is not a JSON object",
    b'{"id": "j-utf8", "text": "\xff"}': "line is not valid UTF-8",
    b'{"text": "no id"}': "id is missing",
    b'{"id": null, "text": "no id"}': "id is null",
}
PARQUET_ROWS: dict[str, tuple[bytes | None, str | None]] = {
    "p-good": (b"a good row", None),
    "p-null": (None, "text is null"),
    "p-empty": (b"", "text is empty"),
    "p-blank": (b"\n\n", "text is only white space"),
    "p-megabyte": (MEGABYTE.encode(), None),
    "p-control": (b"control \x00 \x07", None),
    "p-utf8": (b"\xff\xfe", "text is not valid UTF-8"),
    "p-surrogate": (b"a lone \xed\xa0\x80", "text is not valid UTF-8"),
}
CSV_ROWS: dict[str, tuple[bytes, str | None]] = {
    "c-good": (b"a good row", None),
    "c-newline": (b'"quoted\nnewline, and ""quotes"""', None),
    "c-empty": (b"", "text is empty"),
    "c-blank": (b"  ", "text is only white space"),
    "c-utf8": (b"\xff", "row is not valid UTF-8"),
}
CSV_LINES = {b"c-many,one,two": "row has too many fields", b"c-few": "row has too few fields"}
TEXT_LINES: list[tuple[bytes, str | None]] = [
    (b"a good line", None),
    (b"", "text is empty"),
    (b"   ", "text is only white space"),
    (b"\xff", "line is not valid UTF-8"),
    (b"bell \x07", None),
]


def write_every_format(folder: Path) -> None:
    folder.mkdir()
    json_lines = [
        f'{{"id": "{name}", "text": {text}}}'.encode() for name, (text, _) in JSON_ROWS.items()
    ]
    (folder / "a.jsonl").write_bytes(b"\n".join([*json_lines, *JSON_LINES]) + b"\n")
    texts = pa.array([text for text, _ in PARQUET_ROWS.values()], pa.binary())
    table = pa.table({"id": list(PARQUET_ROWS), "text": pa.Array.view(texts, pa.string())})
    pq.write_table(table, folder / "b.parquet")
    csv_lines = [name.encode() + b"," + text for name, (text, _) in CSV_ROWS.items()]
    (folder / "c.csv").write_bytes(b"\r\n".join([b"id,text", *csv_lines, *CSV_LINES]) + b"\r\n")
    (folder / "d.txt").write_bytes(b"\n".join(line for line, _ in TEXT_LINES) + b"\n")
    (folder / "empty.jsonl").touch()
    (folder / "empty.csv").touch()
    (folder / "empty.txt").touch()


@dataclass(frozen=True)
class Run:
    """A run and what it said."""

    code: int
    output: OutputFolder
    said: str

    def rejects_of(self, file: str) -> list[tuple[str | None, str]]:
        return [
            (row["id"], row["reason"])
            for row in self.output.rejects()
            if row["source"].endswith(file)
        ]

    def embedded(self) -> Counter[str]:
        tables = [self.output.table(name) for name in self.output.names()]
        return Counter(identity for table in tables for identity in table["id"].to_pylist())


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    cluster_faults: FaultPlan,
    ray_cluster: None,
) -> Run:
    """One run over a file of every format, with a backend that raises for one word."""
    folder = tmp_path_factory.mktemp("bad")
    write_every_format(folder / "in")
    poison = Tokenizer.from_file(str(tiny_model / "tokenizer.json")).token_to_id(POISON)
    assert poison is not None
    cluster_faults.clear()
    cluster_faults.add("encode", "raise", match=f",{poison},", times=1000, message="kaboom")
    with pytest.MonkeyPatch.context() as patch:
        said = folder / "stderr"
        with said.open("w") as stderr:
            patch.setattr("sys.stderr", stderr)
            code = main(arguments(folder / "in", folder / "out", tiny_model))
    cluster_faults.clear()
    return Run(code, OutputFolder(folder / "out"), said.read_text())


def test_a_run_with_bad_rows_succeeds_and_accounts_for_every_row(run: Run):
    assert run.code == 0, run.said
    assert "Traceback" not in run.said
    rows = [JSON_ROWS, JSON_LINES, PARQUET_ROWS, CSV_ROWS, CSV_LINES, TEXT_LINES]
    totals = run.output.json("_index.json")["totals"]
    assert totals["source_rows"] == sum(map(len, rows))
    assert totals["source_rows"] == totals["documents"] + totals["rejected"]
    assert totals["rejected"] == len(run.output.rejects())
    assert totals["unreadable"] == 0


@pytest.mark.parametrize(
    ("file", "rows"),
    [("a.jsonl", JSON_ROWS), ("b.parquet", PARQUET_ROWS), ("c.csv", CSV_ROWS)],
    ids=["jsonl", "parquet", "csv"],
)
def test_each_row_is_embedded_or_rejected_with_its_reason(run: Run, file: str, rows: dict):
    bad = {name: reason for name, (_, reason) in rows.items() if reason}
    rejects = {name: reason for name, reason in run.rejects_of(file) if name}
    assert rejects == bad
    embedded = run.embedded()
    assert [embedded[name] for name in rows] == [int(name not in bad) for name in rows]


@pytest.mark.parametrize(("file", "lines"), [("a.jsonl", JSON_LINES), ("c.csv", CSV_LINES)])
def test_a_line_without_a_readable_id_is_rejected_with_its_reason(run: Run, file: str, lines: dict):
    reasons = Counter(reason for name, reason in run.rejects_of(file) if name is None)
    assert reasons == Counter(lines.values())


def test_lines_of_text_are_named_by_their_offset(run: Run):
    offset, good, bad = 0, [], {}
    for line, reason in TEXT_LINES:
        name = f"d.txt:{offset}"
        good += [name] if reason is None else []
        bad |= {name: reason} if reason else {}
        offset += len(line) + 1
    rejects = {Path(name or "").name: reason for name, reason in run.rejects_of("d.txt")}
    assert rejects == bad
    embedded = {Path(name).name for name in run.embedded()}
    assert set(good) <= embedded


def test_a_text_of_a_megabyte_is_embedded_and_said_to_be_truncated(run: Run):
    tables = pa.concat_tables(run.output.table(name) for name in run.output.names())
    long = tables.filter(pa.compute.greater(tables["n_tokens"], 100))
    assert sorted(long["id"].to_pylist()) == ["j-megabyte", "p-megabyte"]
    assert long["truncated"].to_pylist() == [True, True]
    assert long["char_end"].to_pylist() == [len(MEGABYTE)] * 2


def write_truncated_gzip(file: Path) -> None:
    lines = "".join(
        json.dumps({"id": f"gz-{row}", "text": f"row {row} {row * 7919}"}) + "\n"
        for row in range(2_000)
    )
    packed = gzip.compress(lines.encode())
    file.write_bytes(packed[: len(packed) // 2])


def test_a_file_that_cannot_be_read_fails_in_one_line_unless_it_is_to_be_rejected(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "in").mkdir()
    corpus = write_jsonl(tmp_path / "in" / "good.jsonl", prefix="g", rows=20)
    write_truncated_gzip(tmp_path / "in" / "cut.jsonl.gz")
    job = arguments(tmp_path / "in", tmp_path / "out", tiny_model)
    output = OutputFolder(tmp_path / "out")

    assert main(job) == 6
    said = capfd.readouterr().err
    assert "Traceback" not in said
    [error] = error_lines(said)
    assert "1 of 2 work units failed" in error
    assert "cut.jsonl.gz: cannot be read after row" in error
    assert set(corpus.texts) <= set(output.vectors()), "the others are committed"

    truncated_parquet = tmp_path / "in" / "cut.parquet"
    pq.write_table(pa.table({"id": ["x"], "text": ["y"]}), truncated_parquet)
    truncated_parquet.write_bytes(truncated_parquet.read_bytes()[:-20])
    assert main(job) == 5
    said = capfd.readouterr().err
    assert "Traceback" not in said
    [error] = error_lines(said)
    assert "cut.parquet" in error

    assert main([*job, "--on-invalid", "reject"]) == 0
    unreadable = {Path(row["source"]).name: row for row in output.rejects() if row["row"] is None}
    assert set(unreadable) == {"cut.jsonl.gz", "cut.parquet"}
    assert "cannot be read after row" in unreadable["cut.jsonl.gz"]["reason"]
    report = output.json("_report.json")
    assert report["unreadable"] == 2
    ids = [name for name in output.vectors() if name.startswith("gz-")]
    assert len(ids) > 100, "what could be read of the file is embedded"
    assert sorted(ids) == sorted(f"gz-{row}" for row in range(len(ids)))


def test_ids_that_occur_twice_are_reported_after_everything_is_written(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "in").mkdir()
    line = json.dumps({"id": "twin", "text": "one of two"})
    (tmp_path / "in" / "a.jsonl").write_text(f"{line}\n")
    (tmp_path / "in" / "b.jsonl").write_text(f"{line}\n")

    assert main(arguments(tmp_path / "in", tmp_path / "out", tiny_model)) == 7

    [error] = error_lines(capfd.readouterr().err)
    assert "'twin' occurs in shards" in error
    assert "all rows are written. Make --id-column unique" in error
    output = OutputFolder(tmp_path / "out")
    index = output.json("_index.json")
    assert (index["totals"]["rows"], index["ids_checked"]) == (2, False)


def test_the_first_bad_row_fails_its_unit_where_none_is_tolerated(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
):
    write_jsonl(tmp_path / "in" / "a.jsonl", prefix="a", rows=20)
    job = arguments(tmp_path / "in", tmp_path / "out", tiny_model)

    assert main([*job, "--on-invalid", "fail"]) == 6

    [error] = error_lines(capfd.readouterr().err)
    assert "row 3 (id 'a-3'): text is only white space" in error
    assert OutputFolder(tmp_path / "out").names() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "this folder holds no files"),
        ({"id": ["a"]}, "expected a column 'text', found 'id'"),
        ({"text": ["a"]}, "expected a column 'id', found 'text'"),
        ({"id": ["a"], "text": [7]}, "expected strings in text column 'text', found int64"),
        ({"id": [["a"]], "text": ["b"]}, "expected numbers or strings in id column 'id'"),
    ],
    ids=["empty folder", "no text column", "no id column", "numbers as text", "nested id"],
)
def test_input_that_no_row_of_can_be_embedded_is_refused_before_anything_starts(
    tmp_path: Path, content: dict | None, said: str, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "in").mkdir()
    if content is not None:
        pq.write_table(pa.table(content), tmp_path / "in" / "a.parquet")

    assert main(arguments(tmp_path / "in", tmp_path / "out", tmp_path / "no-model")) == 2

    [error] = error_lines(capfd.readouterr().err)
    assert said in error
    assert not (tmp_path / "out").exists()
