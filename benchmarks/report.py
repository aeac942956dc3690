"""Measurements as tables and plots.

    python -m benchmarks.report                          write the documents' tables and docs/plots
    python -m benchmarks.report --check                  fail where they differ from the lines
    python -m benchmarks.report --print --lines FILE...  print the tables of these lines

A file in docs/measurements is named YYYY-MM-DD-WHAT.jsonl. Of each WHAT the newest day's is taken.
Those of other machines are in a folder of their own: the place of a table names its file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.lines import Line, read_lines
from benchmarks.paths import REPOSITORY
from benchmarks.reporting.documents import fill, names_in
from benchmarks.reporting.plots import PLOTS
from benchmarks.reporting.tables import TABLES

__all__ = ["main", "newest"]

_DATE = len("2026-01-31")
_OTHER_MACHINES = "other-machines"


def main(argv: Sequence[str] | None = None) -> int:
    """Write, check or print; return 0, or 1 where something differs or cannot be read."""
    arguments = _parser().parse_args(argv)
    try:
        lines = (
            read_lines(arguments.lines)
            if arguments.lines
            else newest(sorted(arguments.measurements.glob("*.jsonl")))
        )
        tables = {name: make(lines) for name, make in TABLES.items()}
        if arguments.print:
            _print(tables)
            return 0
        return _bring_up_to_date(_contents(arguments, tables, lines), check=arguments.check)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"benchmark: error: {error}\n")
        return 1


def newest(files: Sequence[Path]) -> list[Line]:
    """Return the lines of each measurement's newest day, in the order of the files.

    Args:
        files: Named by their day and by what was measured, sorted.

    Raises:
        ValueError: A file holds something else than lines.
    """
    last = {file.name[_DATE:]: file for file in files}
    return read_lines(sorted(last.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--check", action="store_true", help="write nothing; fail where something differs")
    add("--print", action="store_true", help="print the tables, write nothing")
    add("--lines", type=Path, nargs="+", help="these files instead of the newest")
    add("--measurements", type=Path, default=REPOSITORY / "docs/measurements")
    documents = [REPOSITORY / "README.md", REPOSITORY / "docs/benchmarks.md"]
    add("--documents", type=Path, nargs="*", default=documents)
    add("--plots", type=Path, default=REPOSITORY / "docs/plots", help="folder of the plots")
    return parser


def _print(tables: Mapping[str, str]) -> None:
    for name, table in tables.items():
        if table:
            sys.stdout.write(f"\n{name}\n\n{table}\n")


def _contents(
    arguments: argparse.Namespace, tables: Mapping[str, str], lines: Sequence[Line]
) -> dict[Path, str]:
    """Return what every file should hold."""
    contents = {
        document: _filled(document.read_text(encoding="utf-8"), tables, arguments.measurements)
        for document in arguments.documents
    }
    for name, draw in PLOTS.items():
        drawn = draw(lines)
        if drawn:
            contents[arguments.plots / f"{name}.svg"] = drawn
    return contents


def _filled(text: str, tables: Mapping[str, str], measurements: Path) -> str:
    of_others = {}
    for place in names_in(text):
        name, _, file = place.partition(" ")
        if file and name in TABLES:
            lines = read_lines([measurements / _OTHER_MACHINES / f"{file}.jsonl"])
            of_others[place] = TABLES[name](lines)
    return fill(text, {**tables, **of_others})


def _bring_up_to_date(contents: Mapping[Path, str], *, check: bool) -> int:
    differ = [
        file
        for file, content in contents.items()
        if not file.exists() or file.read_text(encoding="utf-8") != content
    ]
    if check:
        for file in differ:
            sys.stderr.write(
                f"benchmark: error: {file.name} is not what docs/measurements say; "
                "run python -m benchmarks.report\n"
            )
        return 1 if differ else 0
    for file in differ:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(contents[file], encoding="utf-8")
        sys.stdout.write(f"wrote {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
