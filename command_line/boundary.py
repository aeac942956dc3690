"""Where a command meets the shell: errors and signals become exit codes, a closed pipe nothing.

Results are the command's own, on stdout; what is logged goes to stderr.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from encoder.errors import TwofoldError

__all__ = ["interruptible", "keeping_sigterm", "run_command", "shown"]

_PACKAGES = ("command_line", "encoder", "pipelines", "serving")
"""Whose progress is shown; of other packages' lines those alone that warn."""
_SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a process."""


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which Kubernetes, `ray job stop` and `timeout` send: an interrupt of their own."""


def run_command(function: Callable[[], int], exit_code: Callable[[TwofoldError], int]) -> int:
    """Run a command and return its exit code: the boundary at which errors become messages.

    What twofold raises on purpose is one line (one a problem) on stderr; anything else is a defect
    and keeps its traceback.
    """

    def run() -> int:
        try:
            with _logging():
                return function()
        except TwofoldError as error:
            sys.stderr.write(f"twofold: error: {shown(str(error))}\n")
            return exit_code(error)

    return interruptible(run)


def shown(text: str) -> str:
    """Return a message as a terminal and a log may have it, whatever a file in it calls itself.

    What is not printable is escaped: names may hold a terminal's commands. Lines after the first
    are indented, so that none passes for a message of its own.
    """
    kept = (c if c.isprintable() or c in "\t\n" else ascii(c)[1:-1] for c in text)
    return "".join(kept).replace("\n", "\n    ")


def interruptible(function: Callable[[], int]) -> int:
    """Run what returns an exit code; return that of the signal where one ends it.

    An interrupt says that nothing which was committed is lost. A reader of stdout that has gone
    changes nothing, neither the exit code nor what else there is to do.
    """
    with _terminated_as_interrupted(), _without_a_reader():
        try:
            return function()
        except _TerminatedError:
            return _stopped("terminated", signal.SIGTERM)
        except KeyboardInterrupt:
            return _stopped("interrupted", signal.SIGINT)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Log to stderr, a line with its time, while a command runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s"))
    handler.addFilter(_is_told_by_nobody_else)
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in _PACKAGES]
    levels = [logger.level for logger in ours]
    root.addHandler(handler)
    for logger in ours:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for logger, level in zip(ours, levels, strict=True):
            logger.setLevel(level)


def _is_told_by_nobody_else(record: logging.LogRecord) -> bool:
    """Whether a record's package shows nothing itself (the hub's client does)."""
    if record.name == logging.root.name:
        return True
    handlers = logging.getLogger(record.name.partition(".")[0]).handlers
    return all(isinstance(handler, logging.NullHandler) for handler in handlers)


@contextlib.contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Restore this process's SIGTERM handler after `ray.init`, which installs one that aborts."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if is_main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _stopped(word: str, by: signal.Signals) -> int:
    sys.stderr.write(f"twofold: {word}; run the same command again to go on\n")
    return _SIGNALLED + by


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end what runs as Ctrl-C does, unless somebody else waits for it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TerminatedError

    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not is_ours:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Pipe:
    """Stdout whose reader may go: what is written after that is dropped."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - whatever stands in for stdout
        self._stream = stream

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the stream's own
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # What the stream still holds is written at the end, and would fail again.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


@contextlib.contextmanager
def _without_a_reader() -> Iterator[None]:
    if sys.stdout is None:  # closed by whoever started this process
        yield
        return
    pipe = _Pipe(sys.stdout)
    with contextlib.redirect_stdout(pipe):
        try:
            yield
        finally:
            pipe.flush()
