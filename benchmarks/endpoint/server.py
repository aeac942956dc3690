"""A server that is measured: started, paused while others are measured, ended with its whole tree.

A server that idles still takes its part of a small machine (Ray's daemons a tenth of a core), so
only the one that is measured runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.endpoint.systems import System
from benchmarks.errors import BenchmarkError

__all__ = ["Server"]

_POLL_S = 0.1
_END_S = 30.0
_SHOWN = 3_000


class Server:
    """A system's process tree, below a supervisor.

    Args:
        system: What to start.
        log: Takes what it says.
        folder: The repository, where it is started.
    """

    def __init__(self, system: System, log: Path, folder: Path) -> None:
        self.system = system
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.endpoint.supervisor", str(log), *system.command],
            cwd=folder,
            env={**os.environ, **system.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the benchmark, which then ends the server.
            start_new_session=True,
        )

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> float:
        """Wait until the server is ready; return after how many seconds it was.

        Raises:
            BenchmarkError: It ended, or the time is up; the message holds the end of its log.
        """
        started = time.monotonic()
        while not is_ready():
            waited = time.monotonic() - started
            if self._process.poll() is not None or waited > timeout_s:
                said = self._log.read_text(errors="replace")[-_SHOWN:]
                raise BenchmarkError(f"{self.system.label} did not answer:\n{said}")
            time.sleep(_POLL_S)
        return time.monotonic() - started

    def pause(self) -> None:
        """Stop every process of it."""
        self._order(b"pause\n")

    def resume(self) -> None:
        """Let them go on."""
        self._order(b"resume\n")

    def end(self) -> None:
        """End the server and all that it started."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()

    def _order(self, order: bytes) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(order)
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            said = self._log.read_text(errors="replace")[-_SHOWN:]
            raise BenchmarkError(f"{self.system.label} has ended:\n{said}")
