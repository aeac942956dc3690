"""The folder that a benchmark works in, and its exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.work_folder import measure_in_folder

REPOSITORY = Path(__file__).resolve().parents[3]


def test_a_benchmark_gets_an_empty_folder_which_is_gone_afterwards(tmp_path: Path):
    found: list[Path] = []

    def measure(work: Path) -> None:
        assert list(work.iterdir()) == []
        (work / "vectors").mkdir()
        (work / "vectors/file").write_text("some")
        found.append(work)

    assert measure_in_folder(measure, tmp_path) == 0
    assert found[0].parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_run_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def measure(work: Path) -> None:
        (work / "log").write_text("some")
        raise BenchmarkError("the job ended with 3")

    assert measure_in_folder(measure, tmp_path) == 1
    assert capsys.readouterr().err == "benchmark: error: the job ended with 3\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert measure_in_folder(lambda _: None, tmp_path / "missing") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_defect_is_raised_and_leaves_no_folder(tmp_path: Path):
    def measure(work: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure_in_folder(measure, tmp_path)
    assert list(tmp_path.iterdir()) == []


_ENDED = """
import os, signal, sys
from pathlib import Path
from benchmarks.work_folder import measure_in_folder

def measure(work):
    (work / "log").write_text("some")
    os.kill(os.getpid(), signal.SIGTERM)

try:
    measure_in_folder(measure, Path(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(7 if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else 8)
"""


def test_a_benchmark_that_is_ended_clears_its_folder_as_by_ctrl_c(tmp_path: Path):
    # In a process of its own: in one that has run Ray, SIGTERM is not Python's alone.
    finished = subprocess.run([sys.executable, "-c", _ENDED, tmp_path], cwd=REPOSITORY, check=False)

    assert finished.returncode == 7
    assert list(tmp_path.iterdir()) == []
