"""What every benchmark stands in: an empty folder that goes again, one line for what went wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.errors import BenchmarkError
from encoder.errors import TwofoldError

__all__ = ["measure_in_folder"]

_EXPECTED = (
    BenchmarkError,
    TwofoldError,
    subprocess.CalledProcessError,
    LookupError,  # a process that ended before its memory was sampled
    ValueError,
    OSError,
)


def measure_in_folder(measure: Callable[[Path], None], parent: Path | None = None) -> int:
    """Give a benchmark an empty folder; return its exit code: 0, or 1 where it could not be run.

    Args:
        measure: Writes its lines to stdout, all else into the folder.
        parent: Where the folder lies; None for the temporary folder.
    """
    # A benchmark that is ended, by `timeout` for one, ends what it started: as by Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # A process that is being killed may still write there: what it leaves is no failure.
        with tempfile.TemporaryDirectory(
            prefix="twofold-bench-", dir=parent, ignore_cleanup_errors=True
        ) as folder:
            measure(Path(folder))
    except _EXPECTED as error:
        sys.stderr.write(f"benchmark: error: {error}\n")
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0
