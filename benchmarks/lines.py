"""Lines of JSON: what every benchmark writes and what the report reads.

A line carries `benchmark`, `measures` (not those of `plan` and `resume`, which measure one thing)
and, where something was measured, the machine (of `serve` only the summary does, which ends its
run). With `--lines FILE` lines are appended there, so that a benchmark in several steps makes one
file; without it they go to stdout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Line", "Lines", "last_line", "read_lines"]

Line = dict[str, Any]
"""One measurement. Field names end in their unit."""


class Lines:
    """Where a benchmark's lines go.

    Args:
        benchmark: The name that each of them carries.
        file: Appended to; None for stdout.
        context: What every line repeats, so that it can be read alone.
    """

    def __init__(self, benchmark: str, file: Path | None, context: Line) -> None:
        self._benchmark = benchmark
        self._file = file
        self._context = context

    def write(self, measures: str, line: Line) -> None:
        """Write one line; a reader sees it at once.

        Args:
            measures: What; "" where the benchmark measures one thing, and its lines do not say it.
            line: The figures.
        """
        named = {"measures": measures} if measures else {}
        content = {"benchmark": self._benchmark, **named, **line, **self._context}
        text = json.dumps(content) + "\n"
        if self._file is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as output:
            output.write(text)


def read_lines(files: Iterable[Path]) -> list[Line]:
    """Return all lines of files, in their order; `benchmark` and `measures` are "" where absent.

    Raises:
        ValueError: A line is not a JSON object; names it.
    """
    found: list[Line] = []
    for file in files:
        for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                line = json.loads(text)
            except ValueError as error:
                raise ValueError(f"expected JSON in {file}:{number}, found: {error}") from error
            if not isinstance(line, dict):
                raise ValueError(f"expected an object in {file}:{number}, found {text[:80]}")
            # Commands write lines there too (`twofold evaluate`); they are no benchmark's.
            found.append({"benchmark": "", "measures": "", **line})
    return found


def last_line(lines: Sequence[Line], benchmark: str, measures: str) -> Line | None:
    """Return the last line of a benchmark that measures this, None where there is none."""
    found = [
        line for line in lines if (line["benchmark"], line["measures"]) == (benchmark, measures)
    ]
    return found[-1] if found else None
