"""SIGKILL for the driver, an actor or all of Ray, at every step and at random; then a second run.

Run with `make test-slow`. The cells that need no other process than the actor or the driver killed
share the session's Ray; where Ray itself is killed, each run has its own.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.fault_plan import FaultPlan
from support.jobs import embed, embedding
from support.outputs import Corpus, OutputFolder, write_jsonl
from support.s3_store import S3Store

pytestmark = [pytest.mark.integration, pytest.mark.slow]

COMMIT_STEPS = ("before-rejects", "before-data", "after-data")
STORES = ("local", "s3")


@pytest.fixture(params=STORES)
def output(request: pytest.FixtureRequest, tmp_path: Path) -> OutputFolder:
    """An empty output on a local disk, and one on S3."""
    if request.param == "local":
        return OutputFolder(tmp_path / "out")
    store: S3Store = request.getfixturevalue("s3_store")
    return OutputFolder(store.fresh_prefix())


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_jsonl(tmp_path / "in" / "a.jsonl", prefix="a", rows=40) | write_jsonl(
        tmp_path / "in" / "b.jsonl", prefix="b", rows=40
    )


def own_ray(faults: FaultPlan) -> dict[str, str]:
    """The environment of a run that starts a Ray of its own."""
    # A driver gives a lost head a minute to come back; the tests do not wait so long.
    return {**faults.environment(), "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}


def check_second_run(
    output: OutputFolder,
    corpus: Corpus,
    tmp_path: Path,
    model: Path,
    environment: dict[str, str],
) -> None:
    """Run again without faults: the rest is done, and no shard that exists is done again."""
    before = output.snapshot()

    finished = embed(tmp_path, tmp_path / "in", output.uri, model, environment=environment)

    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    output.check(corpus)
    after = output.snapshot()
    assert {name: after[name] for name in before} == before
    report = output.json("_report.json")
    assert (report["shards"], report["duplicate_shards"]) == (len(after) - len(before), 0)


def wait_for_idle_cluster() -> None:
    """Wait until nothing holds a CPU: an actor outlives its driver, and may commit a shard more."""
    import ray

    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "the dead driver's actor goes on"
        time.sleep(0.1)


@pytest.mark.parametrize("step", [*COMMIT_STEPS, "before-index"])
def test_after_a_killed_driver_a_second_run_does_the_rest(
    tmp_path: Path,
    tiny_model: Path,
    corpus: Corpus,
    output: OutputFolder,
    faults: FaultPlan,
    on_cluster: dict[str, str],
    step: str,
):
    fault = faults.add(step, "kill-driver", match="" if step == "before-index" else "-00001")

    killed = embed(tmp_path, tmp_path / "in", output.uri, tiny_model, environment=on_cluster)

    assert (killed.returncode, faults.happened(fault)) == (-9, 1)
    wait_for_idle_cluster()
    check_second_run(output, corpus, tmp_path, tiny_model, on_cluster)


@pytest.mark.parametrize("step", COMMIT_STEPS)
def test_after_a_killed_actor_the_job_itself_does_the_rest(
    tmp_path: Path,
    tiny_model: Path,
    corpus: Corpus,
    output: OutputFolder,
    faults: FaultPlan,
    on_cluster: dict[str, str],
    step: str,
):
    fault = faults.add(step, "kill-actor", match="-00001")

    finished = embed(tmp_path, tmp_path / "in", output.uri, tiny_model, environment=on_cluster)

    assert (finished.returncode, faults.happened(fault)) == (0, 1), finished.stderr
    assert "Traceback" not in finished.stderr
    output.check(corpus)
    check_second_run(output, corpus, tmp_path, tiny_model, on_cluster)


@pytest.mark.parametrize(
    ("output", "step"),
    # How a driver finds that Ray is gone does not depend on the store; each step is killed on both
    # by the tests above.
    [
        ("local", "before-rejects"),
        ("s3", "before-data"),
        ("local", "after-data"),
        ("s3", "before-index"),
    ],
    indirect=["output"],
)
def test_after_a_killed_ray_the_driver_ends_and_a_second_run_does_the_rest(
    tmp_path: Path,
    tiny_model: Path,
    corpus: Corpus,
    output: OutputFolder,
    faults: FaultPlan,
    step: str,
):
    fault = faults.add(step, "kill-cluster", match="" if step == "before-index" else "-00001")

    killed = embed(tmp_path, tmp_path / "in", output.uri, tiny_model, environment=own_ray(faults))

    assert killed.returncode != 0
    assert faults.happened(fault) == 1
    assert "Traceback" not in killed.stderr
    check_second_run(output, corpus, tmp_path, tiny_model, own_ray(faults))


def test_after_six_kills_of_everything_at_random_times_every_row_is_there_once(
    tmp_path: Path, tiny_model: Path, output: OutputFolder, faults: FaultPlan
):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  (shown where the test fails)
    chance = random.Random(seed)
    corpora = [write_jsonl(tmp_path / "in" / f"{n}.jsonl", prefix=f"{n}", rows=80) for n in "abcd"]
    corpus = corpora[0] | corpora[1] | corpora[2] | corpora[3]
    # 32 shards; a little slower than they are, so that most kills meet a job at work.
    faults.add("before-data", "sleep", times=1000, seconds=0.4)
    environment = own_ray(faults)
    committed: dict[str, tuple[str, str]] = {}

    for kill in range(6):
        with embedding(
            tmp_path, tmp_path / "in", output.uri, tiny_model, environment=environment
        ) as running:
            if kill % 3:
                wait_for_a_new_shard(running, output, committed)
            time.sleep(chance.uniform(0, 3))
            running.kill_tree()
        snapshot = output.snapshot()
        assert {name: snapshot[name] for name in committed} == committed
        committed = snapshot

    assert committed, "some runs were killed at work"
    faults.clear()
    check_second_run(output, corpus, tmp_path, tiny_model, environment)


def wait_for_a_new_shard(running, output: OutputFolder, known: dict[str, tuple[str, str]]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.process.poll() is None:
        if set(output.names()) - set(known):
            return
        time.sleep(0.05)


def test_two_jobs_at_once_on_s3_write_every_row_once_and_report_what_was_computed_twice(
    tmp_path: Path,
    tiny_model: Path,
    s3_store: S3Store,
    faults: FaultPlan,
    on_cluster: dict[str, str],
):
    corpus = write_jsonl(tmp_path / "in" / "a.jsonl", prefix="a", rows=80)
    output = OutputFolder(s3_store.fresh_prefix())
    faults.add("before-data", "meet", match="-00003", times=2)
    job = (tmp_path, tmp_path / "in", output.uri, tiny_model)

    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(embed, *job, environment=on_cluster) for _ in range(2)]

    finished = [run.result() for run in runs]
    assert [run.returncode for run in finished] == [0, 0], [run.stderr for run in finished]
    output.check(corpus)
