"""Memory is counted for the processes that carry the token, and for no others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import process_tree
from benchmarks.process_tree import TOKEN, MemoryWatch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MEBIBYTE = 2**20
PROGRAM = """
import subprocess, sys, time
held = b"x" * (64 << 20)
if len(sys.argv) > 1:
    subprocess.run([sys.executable, "-c", sys.argv[1]])
else:
    time.sleep(3)
"""
LATE = f"""
import os, sys, time
time.sleep(1)
os.execve(sys.executable, [sys.executable, "-c", sys.argv[1]], {{"{TOKEN}": "tree"}})
"""


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(process_tree, "_EVERY_S", 0.1)


def test_a_process_and_its_child_count_and_a_stranger_does_not():
    stranger = subprocess.Popen([sys.executable, "-c", PROGRAM])
    with MemoryWatch("tree") as memory:
        parent = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, PROGRAM], env={TOKEN: "tree"}, start_new_session=True
        )
        assert parent.wait(60) == 0
    assert stranger.wait(60) == 0
    assert memory.peak_bytes(parent.pid) > 64 * MEBIBYTE
    # Three of them hold 192 MiB and more.
    assert 128 * MEBIBYTE < memory.tree_peak_bytes < 192 * MEBIBYTE
    with pytest.raises(LookupError, match=f"process {stranger.pid} was never sampled"):
        memory.peak_bytes(stranger.pid)


def test_a_process_that_is_first_seen_before_it_has_the_token_counts():
    with MemoryWatch("tree") as memory:
        late = subprocess.Popen([sys.executable, "-c", LATE, PROGRAM])
        assert late.wait(60) == 0
    assert memory.peak_bytes(late.pid) > 64 * MEBIBYTE
