"""The console script finds commands, and says what it cannot find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import twofold
from command_line.commands import Command, load_command

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A command `fake` that returns what its module's `outcome` returns."""
    module = ModuleType("fake_command")
    module.main = lambda argv: module.outcome(argv)
    monkeypatch.setitem(sys.modules, "fake_command", module)
    monkeypatch.setitem(
        twofold.COMMANDS, "fake", Command("fake_command:main", "Only for this test")
    )
    return module


def test_a_command_gets_the_arguments_after_its_name_and_its_exit_code_comes_back(command):
    seen = []
    command.outcome = lambda argv: seen.append(argv) or 7
    assert twofold.main(["fake", "--output", "o"]) == 7
    assert seen == [["--output", "o"]]


def test_help_lists_every_command_with_one_line(capsys):
    assert twofold.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, entry in twofold.COMMANDS.items():
        assert any(line.split() == [name, *entry.summary.split()] for line in lines)


def test_no_command_shows_the_help_and_fails(capsys):
    assert twofold.main([]) == 2
    assert "usage: twofold COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_refused_with_the_known_ones(capsys):
    assert twofold.main(["embedd"]) == 2
    error = capsys.readouterr().err
    assert "'embedd'" in error
    assert ", ".join(twofold.COMMANDS) in error


def test_the_version_is_shown(capsys):
    assert twofold.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("twofold ")


def test_the_help_waits_for_neither_torch_nor_ray():
    script = (
        "import sys, twofold; twofold.main(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'pyarrow', 'pipelines')))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("name", list(twofold.COMMANDS))
def test_every_command_of_the_table_exists(name: str):
    assert callable(load_command(twofold.COMMANDS[name]))
