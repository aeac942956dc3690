"""A plan as people and programs read it: the lines of a table, or one JSON object."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.capacity.estimate import JOB_TO_LOOP, START_S, Estimate
from pipelines.capacity.fleet import Fleet, Rate
from pipelines.capacity.store_requests import StoreRequests
from pipelines.sampling.sample import CorpusSample
from pipelines.sampling.strata import length_quantiles, tokens_error

__all__ = ["CapacityPlan"]


@dataclass(frozen=True)
class CapacityPlan:
    """A plan and what it rests on.

    Attributes:
        files: Input files.
        input_bytes: Their stored bytes.
        sample: What was read of them.
        fleet: What the job would run on.
        rate: Of one of its devices.
        estimate: What follows.
        requests: Of the run to an object store that holds input and output.
    """

    files: int
    input_bytes: int
    sample: CorpusSample
    fleet: Fleet
    rate: Rate
    estimate: Estimate
    requests: StoreRequests

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        sample, error = self.sample, tokens_error(self.sample.strata)
        return {
            "files": self.files,
            "input_bytes": self.input_bytes,
            "rows_read": sample.rows_read,
            "documents_tokenized": sample.sampled,
            "read_whole": sample.whole,
            "tokens_error": None if math.isnan(error) else round(error, 5),
            "tokens_per_row": length_quantiles(sample.strata),
            "truncated": round(self.estimate.truncated / self.estimate.rows, 5),
            "fleet": asdict(self.fleet),
            "rate": asdict(self.rate),
            **self.estimate.to_dict(),
            "device_hours": round(self.estimate.device_hours(self.fleet), 4),
            "store_requests": asdict(self.requests),
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return the plan as (name, value) lines."""
        found, sample = self.estimate, self.sample
        lengths = length_quantiles(sample.strata)
        quantiles = ", ".join(f"{name} {value:,}" for name, value in lengths.items())
        error = tokens_error(sample.strata)
        exact = "counted" if sample.whole else "estimated"
        stages = ", ".join(
            f"{stage} {_duration(seconds)}" for stage, seconds in found.seconds_by_stage.items()
        )
        unit = "GPU" if self.fleet.gpus else "core"
        return [
            ("input", f"{self.files:,} files, {_bytes(self.input_bytes)}"),
            ("documents", f"{found.documents:,.0f} ({exact})"),
            ("sample", f"{sample.rows_read:,} rows read, {sample.sampled:,} documents tokenized"),
            ("tokens", f"{found.tokens:,.0f}, {_doubt(error)}"),
            ("tokens of a row", quantiles),
            ("rows truncated", f"{found.truncated / found.rows:.1%}"),
            ("output", f"{found.rows:,.0f} rows, {_bytes(found.output_bytes)}"),
            ("work units", f"{found.units:,}"),
            ("shards", f"{found.shards:,}"),
            ("fleet", f"{self.fleet} ({self.fleet.workers} workers)"),
            (
                f"rate of a {unit}",
                f"{self.rate.tokens_per_s:,.0f} tokens/s, {self.rate.basis} ({self.rate.how})",
            ),
            (f"work ({unit} and core time)", stages),
            ("limited by", self._limit()),
            ("time", f"{_duration(found.wall_s)}, {self._time_rests_on()}"),
            (f"{unit} hours", f"{found.device_hours(self.fleet):,.2f}"),
            ("throughput", self._throughput()),
            (
                "requests on an object store",
                f"PUT {self.requests.put:,}, GET {self.requests.get:,}, HEAD "
                f"{self.requests.head:,}, LIST {self.requests.listing:,}",
            ),
        ]

    def _limit(self) -> str:
        found = self.estimate
        notes = [found.limited_by]
        if found.cores_needed is not None:
            has = f"the fleet has {self.fleet.cpus}" if self.fleet.cpus else "--cpus not given"
            notes.append(f"{found.cores_needed:,.1f} cores keep the GPUs busy, {has}")
        if found.wall_s > 1.2 * found.balanced_s:
            notes.append(
                f"{found.units:,} work units on {self.fleet.workers} workers are uneven: "
                f"{_duration(found.balanced_s)} if they were not (smaller --unit-bytes; CSV and "
                "compressed files are one unit each)"
            )
        return "; ".join(notes)

    def _time_rests_on(self) -> str:
        return (
            f"{START_S:g} s of start and {JOB_TO_LOOP:.0%} of the rate in it (both measured on 2 "
            "cores)"
        )

    def _throughput(self) -> str:
        seconds = max(1e-9, self.estimate.wall_s - START_S)
        return (
            f"{self.estimate.tokens / seconds:,.0f} tokens/s, reads "
            f"{_bytes(self.input_bytes / seconds)}/s, writes "
            f"{_bytes(self.estimate.output_bytes / seconds)}/s"
        )


def _doubt(error: float) -> str:
    if math.isnan(error):
        return "from one piece, which cannot say how far it is off; raise --sample-bytes"
    return f"+/- {error:.1%} (two standard errors)"


def _bytes(count: float) -> str:
    """Return "1.2 GB": powers of ten, as disks and stores count."""
    for name in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:,.1f} {name}" if name != "B" else f"{count:,.0f} B"
        count /= 1000
    return f"{count:,.1f} PB"


def _duration(seconds: float) -> str:
    """Return seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:,.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:,.1f} min"
    return f"{seconds / 3600:,.1f} h"
