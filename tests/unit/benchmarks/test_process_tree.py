"""Memory is counted for the processes that carry the token, and for no others."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import process_tree
from benchmarks.process_tree import TOKEN, MemoryWatch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MEBIBYTE = 2**20
PROGRAM = """
import subprocess, sys
held = b"x" * (64 << 20)
if len(sys.argv) > 1:
    subprocess.run([sys.executable, "-c", sys.argv[1]])
else:
    print("holds", flush=True)
    sys.stdin.read()
"""
"""Holds 64 MiB until its stdin ends; so does its child, which says so for both."""
LATE = f"""
import os, sys
sys.stdin.readline()
os.execve(sys.executable, [sys.executable, "-c", sys.argv[1]], {{"{TOKEN}": "tree"}})
"""
"""Gets the token when it is told to."""


@contextmanager
def running(*arguments: str, token: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", *arguments],
        env={TOKEN: "tree"} if token else {},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        yield process
        process.stdin.close()
        assert process.wait(60) == 0


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(process_tree, "_EVERY_S", 0.05)


def test_a_process_and_its_child_count_and_a_stranger_does_not():
    with running(PROGRAM) as stranger:
        assert stranger.stdout.readline() == b"holds\n"
        with MemoryWatch("tree") as memory, running(PROGRAM, PROGRAM, token=True) as parent:
            assert parent.stdout.readline() == b"holds\n"
            wait_until(lambda: memory.tree_peak_bytes > 128 * MEBIBYTE)
    assert memory.peak_bytes(parent.pid) > 64 * MEBIBYTE
    # Three of them hold 192 MiB and more.
    assert memory.tree_peak_bytes < 192 * MEBIBYTE
    with pytest.raises(LookupError, match=f"process {stranger.pid} was never sampled"):
        memory.peak_bytes(stranger.pid)


def test_a_process_that_is_first_seen_before_it_has_the_token_counts(monkeypatch):
    looked_at: dict[str, bool] = {}
    is_ours = MemoryWatch._is_ours

    def look(watch: MemoryWatch, folder: Path) -> bool:
        found = is_ours(watch, folder)
        looked_at.setdefault(folder.name, found)
        return found

    monkeypatch.setattr(MemoryWatch, "_is_ours", look)
    with MemoryWatch("tree") as memory, running(LATE, PROGRAM) as late:
        wait_until(lambda: str(late.pid) in looked_at)
        late.stdin.write(b"now\n")
        late.stdin.flush()
        assert late.stdout.readline() == b"holds\n"
        wait_until(lambda: memory.tree_peak_bytes > 64 * MEBIBYTE)
    assert looked_at[str(late.pid)] is False
    assert memory.peak_bytes(late.pid) > 64 * MEBIBYTE
