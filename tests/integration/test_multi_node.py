"""Several nodes, one of them lost in the middle. Run with `make test-slow`."""

from __future__ import annotations

import time
from collections import Counter
from functools import reduce
from operator import or_
from pathlib import Path

import pytest

from support.fault_plan import FaultPlan
from support.jobs import embedding
from support.outputs import OutputFolder, write_jsonl
from support.ray_nodes import RayNodes
from support.s3_store import S3Store

pytestmark = [pytest.mark.integration, pytest.mark.slow]

UNITS_IN_FLIGHT = 2
"""The job's default: what the lost node's only actor was at work on."""


def test_the_loss_of_a_node_costs_the_units_that_it_was_at_work_on_and_nothing_else(
    tmp_path: Path, tiny_model: Path, s3_store: S3Store
):
    (tmp_path / "faults").mkdir()
    faults = FaultPlan(tmp_path / "faults")
    files = [tmp_path / "in" / f"{number}.jsonl" for number in range(8)]
    corpus = reduce(or_, (write_jsonl(file, prefix=file.stem, rows=60) for file in files))
    output = OutputFolder(s3_store.fresh_prefix())
    # 48 shards, slow enough for a node to be lost in the middle of them.
    faults.add("before-data", "sleep", times=1000, seconds=0.5)
    begun = faults.add("unit", "note", times=1000)
    written = faults.add("before-data", "note", times=1000)
    environment = {**s3_store.address.environment(), **faults.environment()}

    with RayNodes(tmp_path, environment) as nodes:
        nodes.start_head(num_cpus=0)
        nodes.add_node(num_cpus=1)
        lost = nodes.add_node(num_cpus=1)
        with embedding(
            tmp_path,
            tmp_path / "in",
            output.uri,
            tiny_model,
            "--shared-filesystem",
            "--actors",
            "2",
            environment={
                **environment,
                **nodes.client_environment,
                "RAY_ADDRESS": nodes.address,
            },
        ) as running:
            wait_until(lambda: len(output.names()) >= 8)
            lost.kill_tree()
            finished = running.wait(240)

    assert finished.returncode == 0, finished.stderr
    assert "2 to 2 actors" in finished.stderr
    output.check(corpus)
    report = output.json("_report.json")
    again = [unit for unit, times in Counter(faults.subjects(begun)).items() if times > 1]
    assert 1 <= len(again) <= UNITS_IN_FLIGHT, again
    assert all("trying it again" in line for line in lines_about(again, finished.stderr))
    # Of those, what was committed is not embedded again, but for the shard in the writer's hands.
    twice = [shard for shard, times in Counter(faults.subjects(written)).items() if times > 1]
    assert len(twice) <= UNITS_IN_FLIGHT, twice
    assert report["duplicate_shards"] <= len(twice)
    assert {output.footer(name)["run_id"] for name in output.names()} == {report["run_id"]}


def lines_about(units: list[str], said: str) -> list[str]:
    return [line for line in said.splitlines() if any(f"{unit}:" in line for unit in units)]


def wait_until(is_so, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "the job does not come to its middle"
        time.sleep(0.1)
