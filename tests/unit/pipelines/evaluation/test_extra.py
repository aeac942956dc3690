"""Packages of the extra `evaluate`."""

from __future__ import annotations

import sys

import pytest

from encoder.errors import InvalidInputError
from pipelines.evaluation import card, classification, mteb_tasks, sts
from pipelines.evaluation.extra import require_extra


def test_what_is_installed_is_not_complained_about():
    require_extra("json", "csv")


def test_a_missing_package_is_one_line_that_says_how_to_get_it():
    with pytest.raises(
        InvalidInputError, match=r"package no_such_package, .*pip install 'twofold\[evaluate\]'"
    ):
        require_extra("json", "no_such_package")


@pytest.mark.parametrize(
    ("command", "arguments", "package"),
    [
        (sts, ["--pairs", "x"], "scipy"),
        (classification, ["--train", "x", "--test", "x"], "sklearn"),
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
