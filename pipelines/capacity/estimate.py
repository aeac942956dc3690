"""From a sample and rates to hours, bytes and files: arithmetic, nothing is read or measured here.

A worker (one GPU, or up to 8 cores) does whole units, one after the other, in a random order: so
the time is that of the worker that ends last. Where there are GPUs, cores beside them read,
tokenize and write while they compute, and the slower of the two sides sets the pace; where there
are none, the cores do everything in turns.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass
from typing import Any

from pipelines.capacity.fleet import Fleet, Rate
from pipelines.capacity.probe import ShardProbe
from pipelines.sampling.sample import CorpusSample
from pipelines.sampling.strata import Stratum

__all__ = ["JOB_TO_LOOP", "START_S", "Estimate", "estimate"]

START_S = 15.0
"""Seconds from the command to the first forward: Ray starts and actors load the model. Computed
from docs/measurements/2026-11-23-embed-minilm.jsonl: the first commit after 22.6 s, less the shard
of 90,000 tokens in it at the job's rate of 12,600 tokens/s."""
JOB_TO_LOOP = 0.9
"""Rate of the job over that of tokenizing and forward alone, median of the five pairs in the same
file, on two cores. For other fleets it is an assumption."""
_SEED = 0
_STAGES = ("read", "tokenize", "forward", "write")


@dataclass(frozen=True)
class Estimate:
    """What the corpus would take on the fleet.

    Attributes:
        documents: Rows that are embedded.
        rows: Output rows: documents, or their chunks.
        truncated: Output rows that are cut at `max_seq_length`.
        tokens: Tokens given to the model.
        units: Work units.
        shards: Output files.
        output_bytes: Of the data files.
        seconds_by_stage: Work of each stage: of the forward in device seconds, of the others in
            core seconds. (Without GPUs the forward's are core seconds too.)
        cores_needed: Cores that keep the GPUs busy; None without GPUs.
        wall_s: From the command to its end, but for the index.
        balanced_s: The same if units could be divided evenly between the workers.
        limited_by: The stage that sets the pace.
    """

    documents: float
    rows: float
    truncated: float
    tokens: float
    units: int
    shards: int
    output_bytes: float
    seconds_by_stage: dict[str, float]
    cores_needed: float | None
    wall_s: float
    balanced_s: float
    limited_by: str

    def device_hours(self, fleet: Fleet) -> float:
        """Return GPU hours, or core hours."""
        return self.wall_s * fleet.devices / 3600

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, rounded to what they can claim."""
        found = dict(vars(self))
        found["seconds_by_stage"] = {k: round(v, 3) for k, v in self.seconds_by_stage.items()}
        for name in ("documents", "rows", "truncated", "tokens", "output_bytes"):
            found[name] = round(found[name])
        for name in ("wall_s", "balanced_s", "cores_needed"):
            found[name] = None if found[name] is None else round(found[name], 2)
        return found


def estimate(
    sample: CorpusSample, shard: ShardProbe, fleet: Fleet, rate: Rate, *, rows_per_shard: int
) -> Estimate:
    """Compute what the corpus would take.

    Args:
        sample: What the corpus holds.
        shard: What a shard weighs.
        fleet: What it would run on.
        rate: Of one of the fleet's devices.
        rows_per_shard: Rows of an output file.
    """
    rows = sum(stratum.outputs for stratum in sample.strata)
    tokens = sum(stratum.tokens for stratum in sample.strata)
    read_rows = sum(stratum.rows for stratum in sample.strata)
    seconds = {
        "read": sample.read_cpu_s / max(1, sample.rows_read) * read_rows,
        "tokenize": sample.tokenize_cpu_s / sample.sampled_tokens * tokens,
        "forward": tokens / rate.tokens_per_s,
        "write": shard.cpu_s / shard.rows * rows,
    }
    beside = sum(seconds[stage] for stage in _STAGES if stage != "forward")
    if fleet.gpus:
        slow_cores = beside / fleet.cpus if fleet.cpus else 0.0
        forward = seconds["forward"] / fleet.workers
        balanced = max(forward, slow_cores)
        limited = (
            "reading, tokenizing and writing on the cores" if slow_cores > forward else "forward"
        )
    else:
        balanced = sum(seconds.values()) / fleet.devices
        limited = max(seconds, key=seconds.__getitem__)
    ratio = _imbalance(_unit_tokens(sample.strata), fleet.workers)
    return Estimate(
        documents=sum(stratum.documents for stratum in sample.strata),
        rows=rows,
        truncated=sum(stratum.truncated for stratum in sample.strata),
        tokens=tokens,
        units=sum(len(stratum.units) for stratum in sample.strata),
        shards=sum(_shards(stratum, rows_per_shard) for stratum in sample.strata),
        output_bytes=shard.size_bytes / shard.rows * rows,
        seconds_by_stage=seconds,
        cores_needed=beside / (seconds["forward"] / fleet.workers) if fleet.gpus else None,
        wall_s=START_S + balanced * ratio / JOB_TO_LOOP,
        balanced_s=START_S + balanced / JOB_TO_LOOP,
        limited_by=limited,
    )


def _unit_tokens(strata: list[Stratum]) -> list[float]:
    """Return the tokens of every unit, by its part of its kind's bytes."""
    return [
        stratum.tokens * unit.size_bytes / stratum.size_bytes
        for stratum in strata
        if stratum.size_bytes
        for unit in stratum.units
    ]


def _imbalance(unit_tokens: list[float], workers: int) -> float:
    """Return how much longer the last worker takes than all would on average; 1 is none.

    Each free worker takes the next unit, in a random order but the largest first, as the job's do
    once as many of all sizes have begun as are under way at once.
    """
    order = random.Random(_SEED).sample(unit_tokens, len(unit_tokens))
    order.sort(key=lambda tokens: -int(tokens).bit_length())
    busy = [0.0] * workers
    for tokens in order:
        heapq.heappush(busy, heapq.heappop(busy) + tokens)
    total = sum(unit_tokens)
    return max(busy) * workers / total if total else 1.0


def _shards(stratum: Stratum, rows_per_shard: int) -> int:
    """Return the files of a kind's units, at least one each."""
    if not stratum.size_bytes:
        return len(stratum.units)
    per_byte = stratum.outputs / stratum.size_bytes
    return sum(
        max(1, math.ceil(unit.size_bytes * per_byte / rows_per_shard)) for unit in stratum.units
    )
