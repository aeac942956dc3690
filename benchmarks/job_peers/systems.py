"""Which jobs take part: this project's and two scripts, each a command from files to files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.encoder_peers.models import BenchmarkModel
from benchmarks.paths import REPOSITORY

__all__ = ["OURS", "SYSTEMS", "JobSystem"]

OURS = "twofold"
_PEERS = REPOSITORY / "benchmarks/peers"
_ENVIRONMENT = "sentence-transformers"


@dataclass(frozen=True)
class JobSystem:
    """One way to embed a folder of Parquet files into another.

    Attributes:
        name: Unique.
        script: In `benchmarks/peers`; empty for this project's own job.
        threads_a_worker: Of its actors or processes, where the machine has so many.
    """

    name: str
    script: str = ""
    threads_a_worker: int = 1

    def python(self, environments: Path) -> Path:
        """Return the Python that runs it."""
        if not self.script:
            return Path(sys.executable)
        return environments / _ENVIRONMENT / "bin/python"

    def command(
        self, model: BenchmarkModel, source: str, output: str, environments: Path, threads: int
    ) -> list[str]:
        """Return what runs it from `source` to `output`, folders or URIs, on the CPU."""
        python = str(self.python(environments))
        if self.script:
            workers = str(max(1, threads // self.threads_a_worker))
            return [python, str(_PEERS / self.script), str(model.peers), source, output, workers]
        return [
            *(python, "-m", "pipelines.embed_corpus", "--input", source, "--output", output),
            *("--model", str(model.ours), "--actors", "1"),
            *("--num-cpus-per-actor", str(threads), "--device", "cpu"),
        ]


SYSTEMS = (
    JobSystem(OURS),
    JobSystem("ray-data", "ray_data_job.py", threads_a_worker=4),
    JobSystem("multi-process", "multi_process_job.py"),
)
