"""What the server starts is paused and ended with it, wherever in the tree it has gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.endpoint.supervisor import below

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

REPOSITORY = Path(__file__).resolve().parents[4]
DAEMON = """
import os, sys, time
if os.fork():
    time.sleep(float(sys.argv[1]))
    sys.exit(7)
os.setsid()
if os.fork():
    os._exit(0)
time.sleep(60)
"""
"""A server whose daemon leaves its session and its parent."""


def supervised(log: Path, server_s: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", DAEMON, str(server_s)]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.endpoint.supervisor", str(log), *command],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def wait_for(count: int, pid: int) -> dict[int, str]:
    deadline = time.monotonic() + 20
    while len(found := below(pid)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def order(supervisor: subprocess.Popen[bytes], what: bytes) -> None:
    supervisor.stdin.write(what + b"\n")
    supervisor.stdin.flush()
    assert supervisor.stdout.readline() == b"done\n"


def test_a_daemon_is_paused_resumed_and_ended_with_its_server(tmp_path):
    supervisor = supervised(tmp_path / "log", server_s=60)
    try:
        tree = wait_for(2, supervisor.pid)
        order(supervisor, b"pause")
        assert set(below(supervisor.pid).values()) == {"T"}
        order(supervisor, b"resume")
        assert "T" not in below(supervisor.pid).values()
        order(supervisor, b"pause")
    finally:
        supervisor.communicate(timeout=30)
    for pid in tree:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_server_that_ends_takes_its_daemon_along_and_its_code_is_told(tmp_path):
    supervisor = supervised(tmp_path / "log", server_s=1)
    tree = wait_for(2, supervisor.pid)
    assert supervisor.wait(30) == 7
    supervisor.communicate()
    for pid in tree:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
