"""What is measured gets the cores that it is said to get."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.machine import use_cores
from encoder.placement import usable_cpus

SHOW = "import os; print(len(os.sched_getaffinity(0)))"


@pytest.mark.skipif(sys.platform != "linux", reason="the cores of a process are Linux's to say")
def test_what_is_started_has_so_many_cores():
    before = os.sched_getaffinity(0)
    try:
        use_cores(1)
        shown = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, check=True)
        assert shown.stdout.strip() == b"1"
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("count", [0, usable_cpus() + 1])
def test_cores_that_are_not_there_are_refused(count):
    with pytest.raises(ValueError, match=f"expected 1 to {usable_cpus()} threads, found {count}"):
        use_cores(count)
