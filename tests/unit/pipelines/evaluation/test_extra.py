"""Commands whose packages come with the extra `evaluate`."""

from __future__ import annotations

import sys

import pytest

from pipelines.evaluation import card, classification, mteb_tasks, sts


@pytest.mark.parametrize(
    ("command", "arguments", "package"),
    [
        (sts, ["--pairs", "x"], "mteb"),
        (classification, ["--train", "x", "--test", "x"], "mteb"),
        (mteb_tasks, ["--tasks", "STS12"], "mteb"),
        (card, [], "mteb"),
    ],
)
def test_a_command_without_its_package_ends_with_that_line(
    monkeypatch, capsys, command, arguments, package
):
    # What `import` does with a name that is None here is what it does with one that is not there.
    monkeypatch.setitem(sys.modules, package, None)
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert f"expected the Python package {package}" in error
    assert error.count("\n") == 1
