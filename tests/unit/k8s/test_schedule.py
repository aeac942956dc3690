"""The schedule's script with the real kubectl, against an API server that knows RayJobs alone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_cluster import FakeCluster
from support.manifests import K8S, rendered, the, tool

SCRIPT = K8S / "overlays" / "embed-schedule" / "create-rayjob.sh"
LABEL = {"twofold/created-by": "embed-schedule"}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    template = the("RayJob", rendered("embed-schedule"))
    with FakeCluster() as fake:
        fake.add(template["metadata"]["name"], spec=template["spec"])
        yield fake


def run_script(cluster: FakeCluster, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT)],
        env={
            "PATH": f"{Path(tool('kubectl')).parent}:/usr/bin:/bin",
            "HOME": str(folder),
            "KUBECONFIG": str(cluster.write_config(folder)),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_script_is_the_one_that_the_cron_job_runs():
    objects = rendered("embed-schedule")
    assert the("ConfigMap", objects)["data"] == {"create-rayjob.sh": SCRIPT.read_text()}
    pod = the("CronJob", objects)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["bash", f"/script/{SCRIPT.name}"]


def test_a_run_is_a_copy_of_the_template_that_is_not_suspended(cluster, tmp_path):
    finished = run_script(cluster, tmp_path)
    assert finished.returncode == 0, finished.stderr
    (created,) = cluster.created
    template = cluster.jobs["twofold-embed-template"]
    assert created["spec"] == {**template["spec"], "suspend": False}
    assert created["metadata"]["generateName"] == "twofold-embed-"
    assert created["metadata"]["labels"] == LABEL


@pytest.mark.parametrize("status", ["Running", "Initializing", "Retrying"])
def test_no_second_run_starts_beside_one(cluster, tmp_path, status):
    cluster.add("twofold-embed-a", "Complete", LABEL, day=1)
    cluster.add("twofold-embed-b", status, LABEL, day=2)
    finished = run_script(cluster, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "twofold-embed-b" in finished.stdout
    assert cluster.created == []


def test_a_run_that_the_operator_has_not_seen_is_no_run_and_the_schedule_says_so(cluster, tmp_path):
    cluster.add("twofold-embed-a", "Complete", LABEL, day=1)
    cluster.add("twofold-embed-b", "", LABEL, day=2)
    finished = run_script(cluster, tmp_path)
    assert finished.returncode == 1
    assert "twofold-embed-b" in finished.stderr
    assert "does the operator run?" in finished.stderr
    assert cluster.created == []


def test_finished_runs_are_followed_by_another_and_the_oldest_are_deleted(cluster, tmp_path):
    for day in range(1, 11):
        status = "Failed" if day % 2 else "Complete"
        cluster.add(f"twofold-embed-{day}", status, LABEL, day=day)
    finished = run_script(cluster, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert len(cluster.created) == 1
    assert set(cluster.jobs) == {
        "twofold-embed-template",
        *(f"twofold-embed-{day}" for day in range(4, 11)),
    }


def test_without_its_template_the_script_fails(cluster, tmp_path):
    del cluster.jobs["twofold-embed-template"]
    assert run_script(cluster, tmp_path).returncode != 0
    assert cluster.created == []
