"""Commands as a user runs them: a subprocess of its own session, ended with all that it started.

Ray's agents outlive their parents for a moment and are then children of init, and setproctitle
overwrites the environment that /proc shows of them. So a tree is found in four ways: by parentage,
by a token in the inherited environment, by session, and by what was seen earlier. Linux only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Finished", "Running", "run_module", "running_module"]

REPOSITORY = Path(__file__).resolve().parents[2]
_TOKEN = "TWOFOLD_TEST_TREE"


@dataclass(frozen=True)
class Finished:
    """A process that has ended."""

    returncode: int
    stdout: str
    stderr: str


class Running:
    """A module that runs as `python -m`, its output in two files of `folder`."""

    def __init__(self, folder: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._token = uuid.uuid4().hex
        self._seen: dict[int, int] = {}  # pid -> start time, since a pid may be given out again
        self._output = [folder / f"{self._token}.out", folder / f"{self._token}.err"]
        with self._output[0].open("wb") as out, self._output[1].open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(REPOSITORY),
                    **environment,
                    _TOKEN: self._token,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        return self._output[0].read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._output[1].read_text(errors="replace")

    def wait(self, timeout_s: float) -> Finished:
        """Wait for the end; when the time is up, end the tree and fail with what it had said."""
        try:
            returncode = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill_tree()
            raise AssertionError(
                f"{self.process.args} ran longer than {timeout_s} s:\n"
                f"{self.stdout[-4000:]}\n{self.stderr[-4000:]}"
            ) from None
        return Finished(returncode, self.stdout, self.stderr)

    def wait_for_output(self, text: str, timeout_s: float) -> None:
        """Wait until stdout or stderr contains `text`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if text in self.stdout or text in self.stderr:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"never said {text!r}:\n{self.stdout[-4000:]}\n{self.stderr[-4000:]}")

    def kill_driver(self) -> None:
        """SIGKILL the process itself and leave to Ray what becomes of its workers."""
        self.descendants()  # seen while their parents are alive
        self.process.kill()
        self.process.wait()

    def descendants(self) -> dict[int, str]:
        """Return the live processes below this one, as pid -> command line."""
        processes = dict(_processes())
        found = {
            pid
            for pid, entry in processes.items()
            if self._token in entry.environment
            or entry.session == self.process.pid
            or self._seen.get(pid) == entry.started
        }
        grown = True
        while grown:
            children = {pid for pid, entry in processes.items() if entry.parent in found}
            grown = not children <= found
            found |= children
        found.discard(self.process.pid)
        self._seen |= {pid: processes[pid].started for pid in found}
        return {pid: processes[pid].command for pid in found}

    def kill_tree(self) -> None:
        """SIGKILL this process and everything below it, until nothing is left."""
        deadline = time.monotonic() + 20
        while (pids := self.descendants()) or self.process.poll() is None:
            for pid in [self.process.pid, *pids]:
                _kill(pid)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
            if time.monotonic() > deadline:
                raise AssertionError(f"these processes do not end: {pids}")


@contextmanager
def running_module(
    folder: Path, module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Start `python -m module arguments`; on leaving, nothing that it started is alive."""
    running = Running(folder, [module, *arguments], environment or {})
    try:
        yield running
    finally:
        running.kill_tree()


def run_module(
    folder: Path,
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 180,
) -> Finished:
    """Run `python -m module arguments` to its end."""
    with running_module(folder, module, *arguments, environment=environment) as running:
        return running.wait(timeout_s)


@dataclass(frozen=True)
class _Process:
    parent: int
    session: int
    started: int
    command: str
    environment: str


def _processes() -> Iterator[tuple[int, _Process]]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        # A process may end while it is looked at.
        with suppress(OSError):
            # proc(5): the fields from the third on; the second, the name, may contain spaces.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] in "ZX":
                continue
            yield (
                int(folder.name),
                _Process(
                    parent=int(fields[1]),
                    session=int(fields[3]),
                    started=int(fields[19]),
                    command=_words(folder / "cmdline"),
                    environment=_words(folder / "environ"),
                ),
            )


def _words(file: Path) -> str:
    # Unreadable for another user's process, and for a dying one, which counts until it is dead.
    with suppress(OSError):
        return file.read_text(errors="replace").replace("\0", " ").strip()
    return ""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
