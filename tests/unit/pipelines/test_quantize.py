"""The `twofold quantize` command: what it samples, what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from encoder.model.int8_record import Int8Record
from encoder.quantization import QuantizedModel
from encoder.settings import DtypeName, EncoderSettings
from encoder.tokenizer import Tokenized
from pipelines.quantize import main


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "documents.jsonl"
    rows = ({"key": n, "title": f"title {n}", "body": "word " * (n % 9 + 1)} for n in range(200))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> list[tuple[Any, ...]]:
    """What the command asks for; nothing is quantized."""
    from encoder.model.description import describe_model

    calls: list[tuple[Any, ...]] = []

    def take(settings: EncoderSettings, sample: Tokenized, to: str) -> QuantizedModel:
        calls.append((settings, sample, to))
        record = Int8Record(
            graph_sha256="ab" * 32,
            weights_sha256="cd" * 32,
            dimension=32,
            pad_token_id=0,
            n_weights=10,
            calibration_texts=30,
            held_out_texts=10,
            mean_cosine=0.9957,
            min_cosine=0.9781,
            versions={},
        )
        return QuantizedModel(describe_model(settings).space, record)

    monkeypatch.setattr("encoder.quantization.quantize_model", take)
    return calls


def run(model: Path, documents: Path, *more: str) -> int:
    columns = ("--id-column", "key", "--text-column", "title", "--text-column", "body")
    given = ("--model", str(model), "--input", str(documents), "--to", "there", *columns)
    return main([*given, *more])


def test_it_draws_documents_from_all_over_the_input_with_their_roles_prompt(
    tiny_model: Path, documents: Path, asked: list[tuple[Any, ...]]
) -> None:
    prompt = ("--document-prompt", "passage of text: ", "--sample-documents", "40")
    assert run(tiny_model, documents) == 0
    assert run(tiny_model, documents, *prompt) == 0
    (_, whole, to), (_, few, _) = asked
    assert to == "there"
    assert (len(whole), len(few)) == (200, 40)
    # Title and body: "[CLS] title 7 word ... [SEP]".
    assert set(whole.n_tokens) == set(range(5, 14))
    assert min(few.n_tokens) > 5


def test_it_prints_how_close_the_graph_is(
    tiny_model: Path,
    documents: Path,
    asked: list[tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tiny_model, documents) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("there: int8 graph abababababababab, calibrated on 30 texts; on 10 oth")
    assert "0.99570 in the mean, 0.97810 at least" in line


def test_int8_in_the_environment_does_not_ask_for_the_graph_that_is_to_be_made(
    tiny_model: Path,
    documents: Path,
    asked: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TWOFOLD_DTYPE", "int8")
    assert run(tiny_model, documents) == 0
    assert asked[0][0].dtype is DtypeName.AUTO


@pytest.mark.parametrize(
    ("more", "code", "shown"),
    [
        (["--sample-documents", "31"], 2, "expected at least 32 texts"),
        (["--text-column", "nothing"], 2, "nothing"),
        (["--model", "/nowhere/model"], 4, "/nowhere/model"),
        (["--input", "/nowhere/documents"], 2, "/nowhere/documents"),
    ],
)
def test_a_failure_is_one_line_on_stderr_and_its_exit_code(
    tiny_model: Path,
    documents: Path,
    more: list[str],
    code: int,
    shown: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tiny_model, documents, *more) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert shown in line
