"""Runs a server and holds on to all that it starts, to pause it, resume it and end it whole.

    python -m benchmarks.endpoint.supervisor LOG COMMAND [ARGUMENT ...]

Ray's daemons leave their session and outlive their parents. Linux gives an orphan to its nearest
ancestor that asked for orphans: this process. So whatever the server starts stays below it. It
reads `pause` and `resume` from stdin, a line each, and answers `done`. When stdin ends, however the
benchmark ended, everything below is killed. When the server ends by itself, so does this, with its
exit code. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["below", "main"]

_PR_SET_CHILD_SUBREAPER = 36
_EVERY_S = 1.0
_END_S = 20.0


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit code, or 1 where something below does not end."""
    log, command = Path(argv[0]), argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with log.open("ab") as output:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    code: int | None = None
    while code is None:
        readable, _, _ = select.select([sys.stdin], [], [], _EVERY_S)
        if readable:
            order = os.read(sys.stdin.fileno(), 100).decode().strip()
            if not order:
                break
            _obey(order)
        code = _reap().get(server.pid)
    return _end() or code or 0


def below(pid: int) -> dict[int, str]:
    """Return the processes below one, as pid -> state ("R", "S", "T", ...); zombies are left out.

    Args:
        pid: The ancestor; it is not among them.
    """
    parents: dict[int, int] = {}
    states: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            # A process may end while it is looked at.
            with suppress(OSError):
                # proc(5): the fields from the third on; the second, the name, may contain spaces.
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                parents[int(folder.name)], states[int(folder.name)] = int(fields[1]), fields[0]
    found = {pid}
    grown = True
    while grown:
        children = {child for child, parent in parents.items() if parent in found}
        grown = not children <= found
        found |= children
    return {child: states[child] for child in found - {pid} if states[child] not in "ZX"}


def _obey(order: str) -> None:
    if order == "pause":
        # Again until nothing new has been started in between.
        while running := [pid for pid, state in below(os.getpid()).items() if state != "T"]:
            _signal(running, signal.SIGSTOP)
            time.sleep(0.01)
    elif order == "resume":
        _signal(below(os.getpid()), signal.SIGCONT)
    sys.stdout.write("done\n")
    sys.stdout.flush()


def _end() -> int:
    """Kill everything below; return 1 if something is still there after a while."""
    deadline = time.monotonic() + _END_S
    while left := below(os.getpid()):
        if time.monotonic() > deadline:
            return 1
        _signal(left, signal.SIGKILL)
        _reap()
        time.sleep(0.05)
    _reap()
    return 0


def _reap() -> dict[int, int]:
    """Collect children that have ended; return pid -> exit code."""
    ended: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])
    return ended


def _signal(pids: Sequence[int] | dict[int, str], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
