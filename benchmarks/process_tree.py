"""Peak memory of a process and of all that it starts, by sampling /proc. Linux only.

Ray's daemons leave their parent's session and outlive their parents, so what belongs together is
told by a token in the environment, which every descendant inherits.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

__all__ = ["TOKEN", "MemoryWatch"]

TOKEN = "TWOFOLD_BENCHMARK_TREE"
_EVERY_S = 2.0
"""A sample reads a few small files per process; more often would cost the job what it measures."""


class MemoryWatch:
    """Samples the processes whose environment holds `TOKEN=<token>` while its body runs.

    Attributes:
        tree_peak_bytes: Largest sum of proportional set sizes: pages that several processes share
            (libraries, Ray's object store) count once.
    """

    def __init__(self, token: str) -> None:
        self.tree_peak_bytes = 0
        self._entry = f"{TOKEN}={token}".encode()
        self._ours: set[int] = set()
        self._peaks: dict[int, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def peak_bytes(self, pid: int) -> int:
        """Return the largest resident size of one process, as of its last sample.

        Raises:
            LookupError: It was never sampled: it ended too soon, or does not carry the token.
        """
        if pid not in self._peaks:
            raise LookupError(
                f"process {pid} was never sampled; it must carry {TOKEN} and run longer than "
                f"{_EVERY_S:g} s"
            )
        return self._peaks[pid]

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_S):
            total = 0
            for folder in Path("/proc").iterdir():
                if folder.name.isdigit() and self._is_ours(folder):
                    # A process may end while it is looked at.
                    with suppress(OSError):
                        total += _kilobytes(folder / "smaps_rollup", "Pss:")
                        peak = _kilobytes(folder / "status", "VmHWM:")
                        self._peaks[int(folder.name)] = peak
            self.tree_peak_bytes = max(self.tree_peak_bytes, total)

    def _is_ours(self, folder: Path) -> bool:
        """Tell whether a process carries the token; only a yes is remembered.

        Between fork and exec a child still shows its parent's environment: of 60 children, 8 were
        first seen so. A no that was remembered would leave them out for ever.
        """
        pid = int(folder.name)
        if pid not in self._ours:
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                # Gone already, or another user's.
                return False
            if self._entry not in environment.split(b"\0"):
                return False
            self._ours.add(pid)
        return True


def _kilobytes(file: Path, name: str) -> int:
    """Return an entry of a /proc file ("Pss:   1234 kB") in bytes; 0 where it is not there."""
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0
