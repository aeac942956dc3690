"""The whole job, `python -m pipelines.embed_corpus`, timed from outside by what it committed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.process_tree import TOKEN, MemoryWatch
from encoder.settings import EncoderSettings
from pipelines.corpus.shards import DATA, ShardFooter, ShardName, read_footer
from pipelines.storage import Storage

__all__ = ["run", "run_whole_job"]


@dataclass(frozen=True)
class _Commit:
    at: int
    """File time, in nanoseconds."""
    footer: ShardFooter


def run_whole_job(
    source: Path,
    output: Path,
    settings: EncoderSettings,
    *,
    threads: int,
    window: int,
    folder: Path,
) -> dict[str, Any]:
    """Embed a folder of input files into a new output folder and return what it took.

    The rate is taken between the first and the last commit: what was committed after the first one,
    over that time. What comes before (Ray's start, loading the model, the first shard) stands in
    the rate over the wall time.

    Args:
        source: Input files.
        output: Must not exist.
        settings: The encoder's.
        threads: CPUs of the one actor.
        window: Documents of a shard.
        folder: The repository, where the job is started.

    Raises:
        BenchmarkError: The job failed.
    """
    token = uuid.uuid4().hex
    command = [
        *(sys.executable, "-m", "pipelines.embed_corpus"),
        *("--input", str(source), "--output", str(output), "--rows-per-shard", str(window)),
        *("--actors", "1", "--num-cpus-per-actor", str(threads)),
        *("--model", settings.model, "--backend", settings.backend.value),
        *("--dtype", settings.dtype.value),
    ]
    started = time.perf_counter()
    with MemoryWatch(token) as memory:
        pid = run(command, output.with_suffix(".log"), {TOKEN: token}, folder=folder)
    wall_s = time.perf_counter() - started
    report = json.loads((output / "_report.json").read_text())
    commits = _commits(output)
    after = [commit.footer for commit in commits[1:]]
    steady_s = (commits[-1].at - commits[0].at) / 1e9
    return {
        "documents": report["documents"],
        "tokens": report["tokens"],
        "commits": len(commits),
        "documents_per_s": round(sum(f.documents for f in after) / steady_s, 2) if after else None,
        "tokens_per_s": round(sum(f.tokens for f in after) / steady_s, 1) if after else None,
        "first_commit_s": round(report["first_commit_at"] - report["started_at"], 2),
        "wall_s": round(wall_s, 2),
        "wall_documents_per_s": round(report["documents"] / wall_s, 2),
        "wall_tokens_per_s": round(report["tokens"] / wall_s, 1),
        "padding_waste": report["padding_waste"],
        "actor_peak_rss_bytes": report["peak_rss_bytes"],
        "driver_peak_rss_bytes": memory.peak_bytes(pid),
        "tree_peak_bytes": memory.tree_peak_bytes,
        "seconds_by_stage": report["seconds_by_stage"],
        "backend": report["provenance"]["backend"],
        "dtype": report["provenance"]["dtype"],
    }


def run(command: Sequence[str], log: Path, environment: dict[str, str], *, folder: Path) -> int:
    """Run a command to its end, its output in `log`; return its pid.

    Args:
        command: Program and arguments.
        log: Takes stdout and stderr.
        environment: Variables beside those of this process.
        folder: Where it runs.

    Raises:
        BenchmarkError: Its exit code is not 0.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code:
        raise BenchmarkError(
            f"{' '.join(command)} ended with {code}:\n{log.read_text(errors='replace')[-3000:]}"
        )
    return process.pid


def _commits(output: Path) -> list[_Commit]:
    """Return the commits of a local output, the first one first."""
    storage = Storage(str(output))
    names = filter(None, map(ShardName.parse, storage.sizes(DATA)))
    commits = [
        _Commit((output / DATA / str(name)).stat().st_mtime_ns, read_footer(storage, name)[0])
        for name in names
    ]
    return sorted(commits, key=lambda commit: commit.at)
