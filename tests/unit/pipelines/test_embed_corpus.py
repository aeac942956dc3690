"""What is refused before a job begins leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from encoder.errors import InvalidInputError
from encoder.settings import EncoderSettings
from pipelines import embed_corpus as embed_corpus_module
from pipelines.driver import cluster
from pipelines.embed_corpus import embed_corpus, main
from pipelines.settings import EmbedCorpusSettings
from support.corpora import a_unit


def settings(folder: Path, model: Path, output: Path) -> EmbedCorpusSettings:
    (folder / "in.jsonl").write_text('{"id": 1, "text": "a text"}\n')
    return EmbedCorpusSettings(
        input=(str(folder / "in.jsonl"),),
        output=str(output),
        encoder=EncoderSettings(model=str(model)),
    )


def test_a_job_that_its_cluster_cannot_run_pins_nothing(tmp_path, tiny_model, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise InvalidInputError("an actor needs 64 CPUs")

    monkeypatch.setattr(cluster, "start_ray", refuse)
    with pytest.raises(InvalidInputError, match="64 CPUs"):
        embed_corpus(settings(tmp_path, tiny_model, tmp_path / "out"))
    # Other settings may come next.
    assert not (tmp_path / "out" / "_space.json").exists()


def test_large_units_begin_first_and_equal_ones_in_an_order_of_the_runs_own():
    sizes = [10, 1000, 100_000, *[70] * 50]
    units = {str(number): replace(a_unit(), size_bytes=size) for number, size in enumerate(sizes)}
    one, other = (embed_corpus_module._order(units, run, 0) for run in ("a", "b"))
    assert one[:2] == other[:2] == ["2", "1"]
    assert one[-1] == other[-1] == "0"
    assert sorted(one) == sorted(other) == sorted(units)
    assert one != other
    # Those that begin are of all sizes.
    assert embed_corpus_module._order(units, "a", 5)[0] not in ("1", "2")


def test_an_output_in_rays_copy_of_the_working_directory_is_refused(tmp_path, tiny_model):
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    with pytest.raises(InvalidInputError, match=r"outlives the job.*give an absolute path"):
        embed_corpus(settings(tmp_path, tiny_model, copy / "vectors"))
    assert not copy.exists()


def test_a_plan_says_where_the_output_would_be(tmp_path, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "a text"}\n')
    model = ["--model", str(tiny_model)]
    assert main(["--input", "in.jsonl", "--output", "vectors", *model, "--dry-run"]) == 0
    assert f"output       {tmp_path / 'vectors'}\n" in capsys.readouterr().out


def test_neither_help_nor_a_plan_waits_for_ray():
    program = "import sys, pipelines.embed_corpus; print('ray' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    assert shown.stdout == "False\n"
