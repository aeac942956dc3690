"""The `twofold pull` command: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.pull import main


def test_a_model_is_mirrored_and_the_second_run_says_that_nothing_was_to_do(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(tiny_model), "--to", str(tmp_path / "m")]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "copied 7 files" in first
    assert "(query mean without prompt, document cls without prompt, 128 tokens, 32 dim" in first
    assert main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_every_override_is_recorded(tiny_model: Path, tmp_path: Path) -> None:
    overrides = ["--query-pooling", "cls", "--document-pooling", "mean", "--no-normalize"]
    overrides += ["--query-prompt", "q: ", "--document-prompt", "d: "]
    overrides += ["--max-seq-length", "50", "--truncate-dim", "8"]
    assert main(["--model", str(tiny_model), "--to", str(tmp_path), *overrides]) == 0
    space = json.loads((tmp_path / "embedding_space.json").read_text())["space"]
    del space["weights_sha256"], space["tokenizer_sha256"]
    assert space == {
        "query": {"pooling": "cls", "prompt": "q: "},
        "document": {"pooling": "mean", "prompt": "d: "},
        "normalize": False,
        "max_seq_length": 50,
        "truncate_dim": 8,
        "dimension": 8,
    }


@pytest.mark.parametrize(
    ("overrides", "code", "shown"),
    [
        (["--max-seq-length", "2"], 2, "--max-seq-length"),
        (["--truncate-dim", "99"], 4, "truncate_dim 99"),
        (["--model", "/nowhere/model"], 4, "/nowhere/model"),
    ],
)
def test_a_failure_is_one_line_on_stderr_and_its_exit_code(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    code: int,
    shown: str,
) -> None:
    assert main(["--model", str(tiny_model), "--to", str(tmp_path / "m"), *overrides]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("twofold: error: ")
    assert shown in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_variables_and_a_file_of_settings_count_as_with_every_command(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pull.yaml"
    config.write_text(f"to: {tmp_path / 'm'}\nencoder:\n  truncate_dim: 8\n")
    monkeypatch.setenv("TWOFOLD_MODEL", str(tiny_model))
    assert main(["--config", str(config)]) == 0
    space = json.loads((tmp_path / "m" / "embedding_space.json").read_text())["space"]
    assert space["truncate_dim"] == 8


def test_a_destination_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "org/name"]) == 2
    assert "--to: expected a value, found none" in capsys.readouterr().err


def test_another_space_at_the_destination_exits_with_3(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(tiny_model), "--to", str(tmp_path / "m")]
    assert main(arguments) == 0
    assert main([*arguments, "--no-normalize"]) == 3
    assert "normalize: mirror true, here false" in capsys.readouterr().err
