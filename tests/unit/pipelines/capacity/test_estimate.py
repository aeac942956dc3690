"""The arithmetic from a sample and rates to hours, bytes and files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.capacity.estimate import JOB_TO_LOOP, START_S, Estimate, estimate
from pipelines.capacity.fleet import Fleet, Rate
from pipelines.capacity.probe import ShardProbe
from pipelines.sampling.sample import CorpusSample
from pipelines.sampling.strata import PieceCounts, Stratum
from pipelines.source.units import Format, RangeKind, Source, WorkUnit

SHARD = ShardProbe(rows=1_000, size_bytes=1_600_000, cpu_s=0.0)


def a_sample(unit_sizes: list[int], *, read_cpu_s: float = 0.0) -> CorpusSample:
    """Return the sample of 100 documents of 50 tokens for every 1,000 bytes."""
    total = sum(unit_sizes)
    units = [
        WorkUnit(
            Source(f"/in/{n}", "v", size, Format.JSONL), RangeKind.BYTES, 0, size, None, 0, size
        )
        for n, size in enumerate(unit_sizes)
    ]
    count = total // 10
    counts = PieceCounts(total, count, count, count, np.full(count, 50, np.int32), 0)
    sample = CorpusSample([Stratum(units, True, [counts])], whole=True, read_cpu_s=read_cpu_s)
    sample.prepared = []
    return sample


@pytest.fixture(autouse=True)
def tokens_of_the_sample(monkeypatch: pytest.MonkeyPatch):
    """No text was tokenized here: tokenizing costs nothing, or what a test says of one token."""
    monkeypatch.setattr(CorpusSample, "sampled_tokens", 1)


def estimated(
    sample: CorpusSample,
    fleet: Fleet,
    *,
    rate: float = 1_000.0,
    rows_per_shard: int = 1_000,
    shard: ShardProbe = SHARD,
) -> Estimate:
    given = Rate(rate, "given", "")
    return estimate(sample, shard, fleet, given, rows_per_shard=rows_per_shard)


def working_s(found: Estimate) -> float:
    return (found.wall_s - START_S) * JOB_TO_LOOP


def test_twice_the_gpus_take_half_the_time():
    sample = a_sample([1_000] * 64)
    one, two = (estimated(sample, Fleet(n, "H100", None)) for n in (1, 2))
    assert one.tokens == 320_000
    assert working_s(one) == pytest.approx(320)
    assert working_s(two) == pytest.approx(160)


def test_cores_that_cannot_keep_up_set_the_pace():
    sample = a_sample([1_000] * 64, read_cpu_s=1_000.0)
    few = estimated(sample, Fleet(1, "H100", 2))
    many = estimated(sample, Fleet(1, "H100", 16))
    assert few.limited_by == "reading, tokenizing and writing on the cores"
    assert working_s(few) == pytest.approx(500)
    assert many.limited_by == "forward"
    assert working_s(many) == pytest.approx(320)
    assert few.cores_needed == pytest.approx(1_000 / 320)


def test_without_gpus_the_cores_do_everything_in_turns():
    found = estimated(a_sample([1_000] * 64, read_cpu_s=80.0), Fleet(0, "", 4))
    assert working_s(found) == pytest.approx((320 + 80) / 4)
    assert found.cores_needed is None
    assert found.limited_by == "forward"


def test_every_stage_costs_for_all_rows_and_tokens_what_it_cost_for_those_of_the_sample():
    sample = a_sample([1_000] * 64, read_cpu_s=80.0)
    sample.tokenize_cpu_s = 0.002
    found = estimated(sample, Fleet(0, "", 4), shard=replace(SHARD, cpu_s=5.0))
    assert found.seconds_by_stage == pytest.approx(
        {"read": 80, "tokenize": 320_000 * 0.002, "forward": 320, "write": 6.4 * 5}
    )
    assert found.limited_by == "tokenize"
    assert working_s(found) == pytest.approx((80 + 640 + 320 + 32) / 4)


def test_one_unit_cannot_be_shared_between_workers():
    found = estimated(a_sample([64_000]), Fleet(8, "H100", None))
    assert working_s(found) == pytest.approx(320)
    assert (found.balanced_s - START_S) * JOB_TO_LOOP == pytest.approx(40)


def test_the_last_worker_decides():
    # Two workers, three units of one size: one of them does two.
    found = estimated(a_sample([1_000] * 3), Fleet(2, "H100", None))
    assert working_s(found) == pytest.approx(10)


def test_every_unit_has_a_shard_and_shards_end_with_their_unit():
    found = estimated(a_sample([10, 25_000]), Fleet(1, "H100", None))
    assert found.shards == 1 + 3
    assert found.output_bytes == pytest.approx(2_501 * 1_600)


def test_device_hours_count_gpus_and_else_cores():
    sample = a_sample([1_000] * 64)
    for fleet, devices in ((Fleet(2, "H100", 64), 2), (Fleet(0, "", 16), 16)):
        found = replace(estimated(sample, fleet), wall_s=3_600.0)
        assert found.device_hours(fleet) == devices
