"""`make profile` says why there is no graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import profile


def a_py_spy(folder: Path, says: str) -> str:
    """Return a program that fails with a message, whatever it is asked."""
    program = folder / "py-spy"
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("Error: Permission Denied: Try running again with elevated permissions", "needs ptrace"),
        ("Error: Failed to suspend process: EPERM: Operation not permitted", "needs ptrace"),
        ("Error: No stack counts found", "does not work here: Error: No stack counts found"),
    ],
)
def test_a_refusal_is_told_from_other_errors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    says: str,
    expected: str,
):
    monkeypatch.setattr(profile, "_py_spy", lambda: a_py_spy(tmp_path, says))
    assert profile.main(["--output", str(tmp_path / "graphs")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert expected in captured.err
    assert list((tmp_path / "graphs").iterdir()) == []
