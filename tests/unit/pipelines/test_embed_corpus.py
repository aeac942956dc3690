"""What is refused before a job begins leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from encoder.errors import InvalidInputError
from encoder.settings import EncoderSettings
from pipelines.driver import cluster
from pipelines.driver.corpus_plan import Plan
from pipelines.driver.outcome import Outcome
from pipelines.embed_corpus import embed_corpus, main
from pipelines.errors import ClusterError, StorageError, UnitFailedError
from pipelines.settings import EmbedCorpusSettings
from pipelines.storage import Storage
from support.corpora import an_indexed_shard, write_shards


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


def test_an_output_in_rays_copy_of_the_working_directory_is_refused(tmp_path, tiny_model):
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    with pytest.raises(InvalidInputError, match=r"outlives the job.*give an absolute path"):
        embed_corpus(settings(tmp_path, tiny_model, copy / "vectors"))
    assert not copy.exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ClusterError("the head is gone"), "ClusterError: the head is gone"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_a_run_that_ends_early_leaves_its_own_account_and_no_earlier_ones(
    tmp_path, tiny_model, monkeypatch, error, told
):
    output = tmp_path / "out"
    output.mkdir()
    (output / "_report.json").write_text('{"run_id": "yesterday", "problems": []}')

    def end(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("pipelines.embed_corpus._start_ray", lambda *_: object())
    monkeypatch.setattr("pipelines.embed_corpus._embed_units", end)
    with pytest.raises(type(error)):
        embed_corpus(settings(tmp_path, tiny_model, output))
    account = json.loads((output / "_report.json").read_text())
    assert account["run_id"] != "yesterday"
    assert account["problems"] == [told]


def test_where_the_account_cannot_be_written_the_cause_is_still_told(
    tmp_path, tiny_model, monkeypatch, caplog
):
    def end(*_: object, **__: object) -> None:
        raise ClusterError("the head is gone")

    def fail(*_: object, **__: object) -> None:
        raise StorageError("the store is gone, too")

    monkeypatch.setattr("pipelines.embed_corpus._start_ray", lambda *_: object())
    monkeypatch.setattr("pipelines.embed_corpus._embed_units", end)
    monkeypatch.setattr("pipelines.embed_corpus._write_account", fail)
    with pytest.raises(ClusterError, match="the head is gone"):
        embed_corpus(settings(tmp_path, tiny_model, tmp_path / "out"))
    assert "_report.json could not be written: the store is gone, too" in caplog.text


def test_where_the_account_cannot_be_written_what_is_wrong_with_the_corpus_is_still_told(
    tmp_path, tiny_model, monkeypatch, caplog
):
    def fail(*_: object, **__: object) -> None:
        raise StorageError("please reduce your request rate")

    def embed(*_: object) -> Outcome:
        return Outcome({}, failures={"in.jsonl": "its worker died"})

    monkeypatch.setattr("pipelines.embed_corpus._start_ray", lambda *_: object())
    monkeypatch.setattr("pipelines.embed_corpus._embed_units", embed)
    monkeypatch.setattr("pipelines.embed_corpus._write_account", fail)
    with pytest.raises(UnitFailedError, match="its worker died"):
        embed_corpus(settings(tmp_path, tiny_model, tmp_path / "out"))
    assert "_report.json could not be written: please reduce" in caplog.text


def test_what_is_committed_of_a_file_that_goes_while_the_run_is_at_work_is_retired(
    tmp_path, tiny_model, monkeypatch
):
    """Nothing would ever complete it, and `twofold verify` call the corpus damaged for ever."""

    def embed(_: object, plan: Plan, *__: object) -> Outcome:
        (unit,) = plan.units.values()
        write_shards(Storage(str(tmp_path / "out")), [an_indexed_shard(unit, last=False)])
        return Outcome({}, replanned={unit.source.uri})

    monkeypatch.setattr("pipelines.embed_corpus._start_ray", lambda *_: object())
    monkeypatch.setattr("pipelines.embed_corpus._embed_units", embed)
    report = embed_corpus(settings(tmp_path, tiny_model, tmp_path / "out"))
    assert report.retired_shards == 1
    assert list((tmp_path / "out" / "data").iterdir()) == []


def test_a_run_that_ends_before_its_workers_start_has_said_which_it_is(
    tmp_path, tiny_model, monkeypatch, caplog
):
    """The report in the output is then an earlier run's."""

    def refuse(*_: object, **__: object) -> None:
        raise InvalidInputError("an actor needs 64 CPUs")

    monkeypatch.setattr(cluster, "start_ray", refuse)
    caplog.set_level("INFO")
    with pytest.raises(InvalidInputError):
        embed_corpus(settings(tmp_path, tiny_model, tmp_path / "out"))
    assert re.search(r"^INFO .* run [0-9a-f]{32}$", caplog.text, re.MULTILINE)


def test_a_job_says_its_space_also_where_ray_runs_it_as_a_module(tmp_path, tiny_model):
    job = settings(tmp_path, tiny_model, tmp_path / "out")
    flags = ["--input", *job.input, "--output", job.output, "--model", job.encoder.model]
    # Without a pool nothing is embedded.
    program = f"""
import runpy, sys
from pipelines.driver import cluster
cluster.start_ray = lambda *_, **__: None
sys.argv[1:] = {flags!r}
runpy.run_module("pipelines.embed_corpus", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "(query mean without prompt, document cls without prompt, 128" in done.stderr


def test_a_plan_says_where_the_output_would_be(tmp_path, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "a text"}\n')
    model = ["--model", str(tiny_model)]
    assert main(["--input", "in.jsonl", "--output", "vectors", *model, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert f"output       {tmp_path / 'vectors'}\n" in told
    assert "(query mean without prompt, document cls without prompt, 128 tokens," in told


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
