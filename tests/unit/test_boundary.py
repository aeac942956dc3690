"""Where a command meets the shell: errors, signals, pipes."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from command_line.boundary import run_command, shown
from encoder.errors import SpaceMismatchError
from pipelines.errors import UnitFailedError, exit_code

REPOSITORY = Path(__file__).resolve().parents[2]


def test_an_error_of_ours_becomes_one_line_and_its_exit_code(capsys: pytest.CaptureFixture[str]):
    def fail() -> int:
        raise SpaceMismatchError("expected a, found b; choose one")

    assert run_command(fail, exit_code) == 3
    assert capsys.readouterr().err == "twofold: error: expected a, found b; choose one\n"


HOSTILE = "e\x1b[31mvil\r\n2026-11-28 00:00:00,000 all is well\x9b2J\u202e.jsonl"
"""A file's name: an object store and a disk take any."""
SHOWN = r"e\x1b[31mvil\r" + "\n    2026-11-28 00:00:00,000 all is well" + r"\x9b2J\u202e.jsonl"


def test_a_files_name_commands_no_terminal_and_forges_no_line(capsys: pytest.CaptureFixture[str]):
    def fail() -> int:
        logging.getLogger("pipelines.x").warning("%s: left out", HOSTILE)
        raise UnitFailedError(f"{HOSTILE}: lost")

    assert run_command(fail, exit_code) == 6
    said = capsys.readouterr().err
    assert re.sub(r"(?m)^\d{4}-\S+ \S+ ", "TIME ", said) == (
        f"TIME {SHOWN}: left out\ntwofold: error: {SHOWN}: lost\n"
    )


def test_a_name_that_is_no_utf_8_can_be_printed():
    """Not by way of a log here: a test's captured records travel between pytest's processes."""
    assert shown("vil\udcff.jsonl") == r"vil\udcff.jsonl"


def test_what_is_printable_is_shown_as_it_is():
    assert shown("Zürich\t漢字 😀 'a' \\x1b") == "Zürich\t漢字 😀 'a' \\x1b"


def test_the_exit_code_follows_the_error_and_success_passes_through():
    def fail() -> int:
        raise UnitFailedError("unit")

    assert run_command(fail, exit_code) == 6
    assert run_command(lambda: 0, exit_code) == 0


def test_an_interrupt_is_130_and_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]):
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert run_command(interrupt, exit_code) == 130
    assert capsys.readouterr().err == (
        "twofold: interrupted; run the same command again to go on\n"
    )


def test_a_defect_keeps_its_traceback():
    def fail() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(fail, exit_code)


def test_our_lines_and_others_warnings_go_to_stderr_with_their_time_and_results_to_stdout():
    program = """
        import logging, sys
        from command_line.boundary import run_command
        def work():
            logging.getLogger("encoder.x").info("ours")
            logging.getLogger("httpx").info("theirs")
            logging.getLogger("httpx").warning("their warning")
            print("result")
            return 0
        sys.exit(run_command(work, lambda error: 2))
    """
    with started(program) as process:
        results, said = process.communicate(timeout=20)
    assert results == b"result\n"
    assert [line.split()[2:] for line in said.splitlines()] == [[b"ours"], [b"their", b"warning"]]
    assert all(re.match(rb"\d{4}-\d\d-\d\d \d\d:\d\d", line) for line in said.splitlines())


def test_what_a_package_says_by_a_handler_of_its_own_is_not_said_twice(
    capsys: pytest.CaptureFixture[str],
):
    package = logging.getLogger("talkative")
    own = logging.StreamHandler()
    package.addHandler(own)

    def work() -> int:
        logging.getLogger("talkative.module").warning("once")
        return 0

    try:
        assert run_command(work, exit_code) == 0
    finally:
        package.removeHandler(own)
    assert capsys.readouterr().err.count("once") == 1


@pytest.mark.parametrize("name", ["root", "silent.module"])
def test_what_nobody_else_shows_is_shown(name: str, capsys: pytest.CaptureFixture[str]):
    silence = logging.NullHandler()
    logging.getLogger("silent").addHandler(silence)

    def work() -> int:
        (logging.getLogger() if name == "root" else logging.getLogger(name)).warning("once")
        return 0

    try:
        assert run_command(work, exit_code) == 0
    finally:
        logging.getLogger("silent").removeHandler(silence)
    assert capsys.readouterr().err.count("once") == 1


def test_who_runs_a_command_in_its_own_process_has_its_logging_back():
    before = [list(logging.getLogger().handlers), logging.getLogger("encoder").level]
    run_command(lambda: 0, exit_code)
    assert [list(logging.getLogger().handlers), logging.getLogger("encoder").level] == before


def started(program: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


WAITS = """
    import signal, sys, time
    from command_line.boundary import run_command
    # A shell that starts something in the background lets it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    def wait():
        print("ready", flush=True)
        time.sleep(60)
    sys.exit(run_command(wait, lambda error: 2))
"""


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, b"terminated"), (signal.SIGINT, 130, b"interrupted")],
)
def test_a_signal_is_one_line_and_what_a_shell_reports(number, code, word):
    with started(WAITS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert said == b"twofold: " + word + b"; run the same command again to go on\n"


def test_who_waits_for_a_signal_keeps_it():
    program = """
        import os, signal, sys
        from command_line.boundary import run_command
        signal.signal(signal.SIGTERM, lambda *_: sys.stderr.write("mine"))
        def terminate():
            os.kill(os.getpid(), signal.SIGTERM)
            return 5
        sys.exit(run_command(terminate, lambda error: 2))
    """
    with started(program) as process:
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (5, b"mine")


@pytest.mark.parametrize("how", ["sys.stdout.write('x' * 100_000)", "Console().print('x')"])
def test_a_reader_that_has_gone_changes_nothing(how):
    program = f"""
        import sys
        from rich.console import Console
        from command_line.boundary import run_command
        def write():
            sys.stdin.readline()
            {how}
            sys.stdout.flush()
            sys.stderr.write("done")
            return 8
        sys.exit(run_command(write, lambda error: 2))
    """
    with started(program, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, said = process.communicate(b"go\n", timeout=20)
    assert (process.returncode, said) == (8, b"done")


def test_a_command_whose_stdout_is_closed_does_its_work():
    program = """
        import sys
        from rich.console import Console
        from command_line.boundary import run_command
        def write():
            Console().print("a table")
            sys.stderr.write("done")
            return 0
        sys.exit(run_command(write, lambda error: 2))
    """
    closed = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, textwrap.dedent(program)]
    done = subprocess.run(closed, cwd=REPOSITORY, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"done")
