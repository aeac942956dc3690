"""Whatever is killed or raced, and whenever: every row exactly once, and nothing embedded again.

Faults are those of `support/faults`; the full matrix of them is in test_kill_matrix.py.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from command_line.parse import parse_settings
from encoder.model.mirror import mirror
from encoder.settings import EncoderSettings
from pipelines import verify
from pipelines.corpus.pin import pin_output
from pipelines.driver import ledger
from pipelines.driver.corpus_plan import plan_corpus
from pipelines.driver.report import RunReport
from pipelines.embed_corpus import embed_corpus, main
from pipelines.errors import ClusterError, LayoutMismatchError, UnitFailedError, exit_code
from pipelines.settings import EmbedCorpusSettings
from pipelines.storage import Storage
from support.fault_plan import FaultPlan
from support.jobs import arguments, embed, embedding, error_lines
from support.lossy_proxy import LossyProxy
from support.models import minilm_folder
from support.outputs import Corpus, OutputFolder, write_jsonl
from support.s3_store import S3Store

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


def settings(
    inputs: Path, output: Path | str, model: Path | str, *more: str
) -> EmbedCorpusSettings:
    given = [*arguments(inputs, output, model), *more]
    return parse_settings(EmbedCorpusSettings, given, prog="twofold embed", description="")


def run_here(inputs: Path, output: Path | str, model: Path | str, *more: str) -> RunReport:
    """Run the job with this process as its driver: no start of another Python."""
    return embed_corpus(settings(inputs, output, model, *more))


def corpus_of_two_files(folder: Path) -> Corpus:
    return write_jsonl(folder / "a.jsonl", prefix="a", rows=40) | write_jsonl(
        folder / "b.jsonl", prefix="b", rows=40
    )


@pytest.mark.slow
def test_a_driver_killed_between_rejects_and_data_goes_on_where_it_stopped(
    tmp_path: Path, tiny_model: Path, faults: FaultPlan, on_cluster: dict[str, str]
):
    corpus = corpus_of_two_files(tmp_path / "in")
    output = OutputFolder(tmp_path / "out")
    job = (tmp_path, tmp_path / "in", output.uri, tiny_model)
    fault = faults.add("before-data", "kill-driver", match="-00001")

    killed = embed(*job, environment=on_cluster)

    assert killed.returncode == -9
    assert faults.happened(fault) == 1
    before = output.snapshot()
    assert before, "the first run committed something"
    assert set(output.names("_rejects")) - set(output.names()), "it stopped between the two files"
    runs = {name: output.footer(name)["run_id"] for name in before}

    finished = embed(*job, environment=on_cluster)

    assert finished.returncode == 0, finished.stderr
    output.check(corpus)
    after = output.snapshot()
    assert {name: after[name] for name in before} == before
    report = output.json("_report.json")
    assert report["shards"] == len(after) - len(before)
    assert {n for n in after if output.footer(n)["run_id"] == report["run_id"]} == (
        set(after) - set(runs)
    )


@pytest.mark.slow
def test_a_job_that_is_told_to_end_says_so_in_one_line_and_goes_on_when_it_is_run_again(
    tmp_path: Path, tiny_model: Path, on_cluster: dict[str, str]
):
    """As Kubernetes, `ray job stop` and `timeout` tell it: by SIGTERM, at which Ray aborts."""
    corpus = write_jsonl(tmp_path / "in" / "a.jsonl", prefix="a", rows=4_000)
    output = OutputFolder(tmp_path / "out")
    job = (tmp_path, tmp_path / "in", output.uri, tiny_model)

    with embedding(*job, environment=on_cluster) as running:
        deadline = time.monotonic() + 90
        while len(output.names()) < 3:
            assert time.monotonic() < deadline, running.stderr
            time.sleep(0.1)
        running.process.terminate()
        told = running.wait(60)

    assert told.returncode == 143
    assert "twofold: terminated; run the same command again to go on" in told.stderr
    assert "SIGTERM received" not in told.stderr
    before = output.snapshot()
    assert embed(*job, environment=on_cluster).returncode == 0
    output.check(corpus)
    assert {name: output.snapshot()[name] for name in before} == before


@pytest.mark.slow
def test_a_job_whose_actor_is_killed_finishes_by_itself(
    tmp_path: Path, tiny_model: Path, faults: FaultPlan
):
    corpus = corpus_of_two_files(tmp_path / "in")
    fault = faults.add("before-data", "kill-actor", match="-00002")

    run_here(tmp_path / "in", tmp_path / "out", tiny_model)

    assert faults.happened(fault) == 1
    OutputFolder(tmp_path / "out").check(corpus)


@pytest.mark.slow
def test_a_device_that_breaks_in_the_middle_leaves_no_vector_in_the_corpus(
    tmp_path: Path, tiny_model: Path, faults: FaultPlan
):
    corpus = corpus_of_two_files(tmp_path / "in")
    run_here(tmp_path / "in", tmp_path / "whole", tiny_model)
    fault = faults.add("before-data", "break-device", match="-00001")

    run_here(tmp_path / "in", tmp_path / "out", tiny_model)

    assert faults.happened(fault) == 1
    output = OutputFolder(tmp_path / "out")
    output.check(corpus)
    expected = OutputFolder(tmp_path / "whole").vectors()
    for name, vector in output.vectors().items():
        np.testing.assert_allclose(vector, expected[name], atol=1e-5)


@pytest.mark.slow
def test_a_unit_that_always_kills_its_worker_is_named_and_the_others_are_committed(
    tmp_path: Path, tiny_model: Path, faults: FaultPlan, capfd: pytest.CaptureFixture[str]
):
    corpus = corpus_of_two_files(tmp_path / "in")
    write_jsonl(tmp_path / "in" / "killer.jsonl", prefix="k", rows=5)
    fault = faults.add("unit", "kill-actor", match="killer.jsonl", times=100)

    code = main(arguments(tmp_path / "in", tmp_path / "out", tiny_model))

    said = capfd.readouterr().err
    assert code == exit_code(UnitFailedError(""))
    assert faults.happened(fault) == 3, "one try and two more"
    [error] = error_lines(said)
    assert "1 of 3 work units failed" in error
    assert "killer.jsonl" in error
    assert "says which; Ray said: " in error
    assert "Traceback" not in said
    OutputFolder(tmp_path / "out").check(corpus)


@pytest.mark.slow
def test_workers_that_die_of_every_unit_end_the_job_long_before_the_last_of_them(
    tmp_path: Path,
    tiny_model: Path,
    faults: FaultPlan,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    for number in range(16):
        write_jsonl(tmp_path / "in" / f"{number}.jsonl", prefix=f"k{number}-", rows=5)
    # After the model's load: what a worker says in its last milliseconds may be lost with it.
    fault = faults.add("before-read", "kill-actor", times=100)
    monkeypatch.setattr(ledger, "_MOST_LOST_AT_FIRST", 2)
    monkeypatch.setattr(ledger, "_TIMES_LOST_AT_FIRST", 0)

    code = main([*arguments(tmp_path / "in", tmp_path / "out", tiny_model), "--units-in-flight=1"])

    said = capfd.readouterr().err
    assert code == exit_code(ClusterError(""))
    [error] = error_lines(said)
    assert "3 work units are lost with their workers, nothing is committed" in error
    assert "Traceback" not in said
    assert 3 <= faults.happened(fault) < 16


def test_workers_that_cannot_start_end_the_job_with_one_line(
    tmp_path: Path, tiny_model: Path, faults: FaultPlan, capfd: pytest.CaptureFixture[str]
):
    write_jsonl(tmp_path / "in" / "a.jsonl", prefix="a", rows=5)
    faults.add("start", "raise", times=100, message="libsomething is not here")

    assert main(arguments(tmp_path / "in", tmp_path / "out", tiny_model)) == 5

    [said] = error_lines(capfd.readouterr().err)
    assert "Ray could not run the workers: RuntimeError: libsomething is not here" in said


@pytest.mark.slow
def test_two_jobs_at_once_write_every_row_once_and_report_what_was_computed_twice(
    tmp_path: Path, tiny_model: Path, faults: FaultPlan, on_cluster: dict[str, str]
):
    corpus = write_jsonl(tmp_path / "in" / "a.jsonl", prefix="a", rows=40)
    output = OutputFolder(tmp_path / "out")
    # Both have embedded the first shard when the first of them writes it.
    faults.add("before-data", "meet", match="-00000", times=2)
    job = (tmp_path, tmp_path / "in", output.uri, tiny_model)

    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(embed, *job, environment=on_cluster) for _ in range(2)]

    finished = [run.result() for run in runs]
    assert [run.returncode for run in finished] == [0, 0], [run.stderr for run in finished]
    output.check(corpus)
    assert any("computed twice" in run.stdout for run in finished)


@pytest.mark.slow
def test_a_put_whose_reply_is_lost_is_no_loss_and_no_other_jobs_work(
    tmp_path: Path, tiny_model: Path, s3_store: S3Store, lossy_proxy: LossyProxy
):
    corpus = corpus_of_two_files(tmp_path / "in")
    output = OutputFolder(s3_store.fresh_prefix())
    lossy_proxy.drop_reply("PUT", "/data/", times=2)
    lossy_proxy.drop_reply("PUT", "/_rejects/", times=1)

    # A Ray of its own: its workers must know the store by the proxy's address.
    finished = embed(
        tmp_path,
        tmp_path / "in",
        output.uri,
        tiny_model,
        environment={"AWS_ENDPOINT_URL": lossy_proxy.endpoint},
    )

    assert finished.returncode == 0, finished.stderr
    assert len(lossy_proxy.dropped) == 3
    output.check(corpus)
    report = output.json("_report.json")
    assert (report["duplicate_shards"], report["rows"]) == (0, len(corpus.texts))


def test_changed_sources_are_embedded_again_and_unchanged_ones_are_not_touched(
    tmp_path: Path, tiny_model: Path, faults: FaultPlan
):
    folder, output = tmp_path / "in", OutputFolder(tmp_path / "out")
    unchanged = write_jsonl(folder / "a.jsonl", prefix="a", rows=20)
    write_jsonl(folder / "b.jsonl", prefix="b", rows=40)
    run_here(folder, output.uri, tiny_model)
    before = output.snapshot()
    kept = {name for name in before if output.footer(name)["source"].endswith("a.jsonl")}
    # One changes between the runs, and again when the second run begins to read it.
    write_jsonl(folder / "b.jsonl", prefix="newer", rows=30)
    newest = write_jsonl(tmp_path / "newest.jsonl", prefix="newest", rows=25)
    text = (tmp_path / "newest.jsonl").read_text()
    faults.add("read", "rewrite", match="b.jsonl", path=str(folder / "b.jsonl"), text=text)

    report = run_here(folder, output.uri, tiny_model)

    assert report.sources_replanned == 1
    output.check(unchanged | newest)
    after = output.snapshot()
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert report.retired_shards == len(before) - len(kept)


def test_of_files_that_changed_only_new_texts_are_computed_wherever_they_lie(
    tmp_path: Path, tiny_model: Path, s3_store: S3Store
):
    folder, output = tmp_path / "in", OutputFolder(s3_store.fresh_prefix())
    corpus = corpus_of_two_files(folder)
    run_here(folder, output.uri, tiny_model)
    before = output.vectors()
    # Rows are put into one file; the other is written anew, sorted in another way.
    corpus |= write_jsonl(tmp_path / "new.jsonl", prefix="new", rows=5)
    lines = (folder / "a.jsonl").read_text().splitlines()
    lines[7:7] = (tmp_path / "new.jsonl").read_text().splitlines()
    (folder / "a.jsonl").write_text("\n".join(lines))
    lines = (folder / "b.jsonl").read_text().splitlines()
    (folder / "b.jsonl").unlink()
    (folder / "part-0.jsonl").write_text("\n".join(reversed(lines)))

    report = run_here(folder, output.uri, tiny_model, "--prune", "--prune-max", "1")

    output.check(corpus)
    assert report.retired_shards == 8
    assert (report.rows, report.rows - report.reused_rows) == (len(corpus.texts), 4)
    after = output.vectors()
    for identity, vector in before.items():
        np.testing.assert_array_equal(after[identity], vector)
    assert verify.main(["--output", output.uri, "--sample", "100"]) == 0


def test_nothing_is_taken_from_earlier_shards_where_that_is_not_wanted(
    tmp_path: Path, tiny_model: Path
):
    folder, output = tmp_path / "in", OutputFolder(tmp_path / "out")
    write_jsonl(folder / "a.jsonl", prefix="a", rows=10)
    run_here(folder, output.uri, tiny_model)
    with (folder / "a.jsonl").open("a") as file:
        file.write("\n")
    report = run_here(folder, output.uri, tiny_model, "--no-reuse")
    assert (report.rows, report.reused_rows) == (9, 0)


REFUSED = {
    "query": ["--query-pooling", "cls"],
    "document": ["--document-pooling", "mean"],
    "max_seq_length": ["--max-seq-length", "64"],
    "normalize": ["--no-normalize"],
    "role": ["--role", "query"],
    "embedding_dtype": ["--embedding-dtype", "float16"],
    "columns": ["--columns", "text"],
    "text_columns": ["--text-column", "id"],
    "rows_per_shard": ["--rows-per-shard", "11"],
    "unit_bytes": ["--unit-bytes", "1000"],
    "on_long": ["--on-long", "chunk"],
}


@pytest.fixture
def pinned(tmp_path: Path, tiny_model: Path) -> Path:
    """An output that a job has pinned."""
    write_jsonl(tmp_path / "in" / "a.jsonl", prefix="a", rows=5)
    job = settings(tmp_path / "in", tmp_path / "out", tiny_model)
    storage = Storage(job.output)
    pin_output(storage, plan_corpus(job, storage).pin)
    return tmp_path


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_another_setting_into_the_same_output_is_refused_with_both_values(
    pinned: Path, tiny_model: Path, field: str, capsys: pytest.CaptureFixture[str]
):
    given = [*arguments(pinned / "in", pinned / "out", tiny_model), *REFUSED[field]]

    assert main(given) == exit_code(LayoutMismatchError(""))

    [said] = error_lines(capsys.readouterr().err)
    assert re.search(rf"{field}: corpus .+, here .+\. Use the same settings", said)
    assert not (pinned / "out" / "data").exists()


def test_another_model_into_the_same_output_is_refused_naming_its_weights(
    pinned: Path, minilm: str, capsys: pytest.CaptureFixture[str]
):
    assert main(arguments(pinned / "in", pinned / "out", minilm)) == 3

    said = capsys.readouterr().err
    assert "weights_sha256" in said
    assert "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in said


def test_the_same_weights_are_accepted_as_package_folder_and_from_a_bucket(
    tmp_path: Path, minilm: str, s3_store: S3Store, capsys: pytest.CaptureFixture[str]
):
    write_jsonl(tmp_path / "in" / "a.jsonl", prefix="a", rows=5)
    bucket = f"{s3_store.fresh_prefix()}/minilm"
    mirror(EncoderSettings(model=minilm), bucket)
    job = settings(tmp_path / "in", tmp_path / "out", minilm)
    storage = Storage(job.output)
    pin = pin_output(storage, plan_corpus(job, storage).pin)

    for reference in (minilm, str(minilm_folder()), bucket):
        given = arguments(tmp_path / "in", tmp_path / "out", reference)
        assert main([*given, "--dry-run"]) == 0, reference
        assert pin.space.fingerprint in capsys.readouterr().out
