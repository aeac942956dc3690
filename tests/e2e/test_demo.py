"""`twofold demo` on a few docstrings: run twice, and the second run embeds nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support.processes import Finished, run_module

pytestmark = pytest.mark.e2e

LIMIT = 200


def demo(folder: Path) -> Finished:
    return run_module(folder, "twofold", "demo", "--limit", str(LIMIT), "--k", "2", timeout_s=120)


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Name -> (size, mtime) of the corpus and the shards: what a second run must not touch."""
    found = [*folder.glob("corpus/*"), *folder.glob("vectors/data/*")]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in found}


@pytest.mark.slow
def test_the_first_run_embeds_and_the_second_finds_everything_done(tmp_path: Path):
    first = demo(tmp_path)
    assert first.returncode == 0, first.stderr
    assert f"{LIMIT} rows" in first.stdout
    folder = tmp_path / "build" / "demo"
    shards = list(folder.glob("vectors/data/*.parquet"))
    assert sum(pq.read_metadata(shard).num_rows for shard in shards) == LIMIT
    before = files(folder)
    assert len(before) == 1 + len(shards)

    second = demo(tmp_path)
    assert second.returncode == 0, second.stderr
    assert "nothing was embedded" in second.stdout
    assert files(folder) == before
    assert answers(second) == answers(first)


def answers(finished: Finished) -> list[tuple[float, str]]:
    """The (score, id) lines below the questions, of which each has two."""
    found = re.findall(r"^ +(-?\d\.\d{3})  (\S+)$", finished.stdout, flags=re.MULTILINE)
    assert len(found) == 2 * finished.stdout.count(" ms)"), finished.stdout
    return [(float(score), name) for score, name in found]
