"""`twofold plan` from flags to the table; a forward runs only where cores are probed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import embed_corpus
from pipelines.plan_capacity import main
from support.corpora import jsonl


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    jsonl(folder / "a.jsonl", [f"text number {n}" for n in range(40)] + ["", None])
    return folder


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def plan(corpus: Path, minilm: str, *flags: str) -> int:
    return main(["--input", str(corpus), "--model", minilm, *flags])


def test_a_gpu_without_a_rate_exits_2_and_says_what_to_do(
    corpus: Path, minilm: str, capsys: pytest.CaptureFixture[str]
):
    assert plan(corpus, minilm, "--gpus", "8xH100") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "--tokens-per-s" in captured.err


def test_a_plan_for_gpus_names_the_figures_that_it_rests_on(
    corpus: Path, minilm: str, capsys: pytest.CaptureFixture[str]
):
    before = files_below(corpus.parent)
    assert plan(corpus, minilm, "--gpus", "8xH100", "--tflops", "989", "--utilisation", "0.4") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "40 (counted)" in shown
    assert "assumed" in shown
    assert "cores keep the GPUs busy, --cpus not given" in shown
    assert files_below(corpus.parent) == before


def test_a_plan_as_json_counts_tokens_and_bytes(
    corpus: Path, minilm: str, capsys: pytest.CaptureFixture[str]
):
    assert plan(corpus, minilm, "--gpus", "1xL4", "--tokens-per-s", "1e6", "--json-lines") == 0
    found = json.loads(capsys.readouterr().out)
    # [CLS] text number N [SEP]
    assert found["tokens"] == 40 * 5
    assert (found["documents"], found["rows_read"], found["truncated"]) == (40, 42, 0)
    assert found["output_bytes"] > 40 * 384 * 4
    assert found["rate"]["basis"] == "given"
    assert found["store_requests"]["put"] == found["shards"] + 7


def test_half_precision_halves_the_vectors(
    corpus: Path, minilm: str, capsys: pytest.CaptureFixture[str]
):
    sizes = []
    for dtype in ("float32", "float16"):
        flags = ("--gpus", "1xL4", "--tokens-per-s", "1", "--embedding-dtype", dtype)
        assert plan(corpus, minilm, *flags, "--json-lines") == 0
        sizes.append(json.loads(capsys.readouterr().out)["output_bytes"])
    # A footer holds its source's path, and is compressed: some bytes more or fewer.
    assert sizes[0] - sizes[1] == pytest.approx(40 * 384 * 2, abs=64)


def test_cores_are_probed_here(corpus: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]):
    flags = ("--cpus", "2", "--probe-s", "0.1", "--backend", "torch", "--json-lines")
    assert plan(corpus, str(tiny_model), *flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rate"]["basis"] == "measured"
    assert found["rate"]["tokens_per_s"] > 0
    assert found["wall_s"] > 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--on-long", "chunk", "--chunk-overlap", "400"], "more than half of max_seq_length"),
        (["--columns", "id"], "named more than once"),
        (["--columns", "embedding"], "the job's own"),
        (["--columns", "mixed"], "one type in column 'mixed'"),
    ],
)
def test_what_a_run_would_refuse_is_not_planned(
    corpus: Path,
    minilm: str,
    flags: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
):
    (corpus / "a.jsonl").write_text('{"id": "1", "text": "a", "mixed": {}}\n')
    given = ["--input", str(corpus), "--model", minilm, *flags]

    assert embed_corpus.main([*given, "--output", str(corpus.parent / "out"), "--dry-run"]) == 2
    (refusal,) = capsys.readouterr().err.splitlines()
    assert reason in refusal

    assert main([*given, "--gpus", "1xL4", "--tokens-per-s", "1e6"]) == 2
    assert capsys.readouterr().err.splitlines() == [refusal]


def test_an_input_that_is_not_there_is_one_line(
    tmp_path: Path, minilm: str, capsys: pytest.CaptureFixture[str]
):
    assert plan(tmp_path / "none", minilm, "--cpus", "2") == 2
    assert capsys.readouterr().err.count("\n") == 1
