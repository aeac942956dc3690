"""Docstrings are collected without importing, once a name, and written only when they differ."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.docstrings import (
    Docstring,
    collect_docstrings,
    docstring_table,
    standard_library,
    write_if_different,
)

MODULE = '''"""A module.

Its second paragraph.
"""
raise RuntimeError("imported")

class Queue:
    """A queue."""
    def put(self, item):
        """
        Put an item.

            Indented by four.
        """
        def nested():
            """Not reachable by a name."""
    async def get(self): "Get an item."
    def undocumented(self): ...

if CONDITION:
    def sort(): "As it stands first."
else:
    def sort(): "As it stands second."
try:
    import fast
except ImportError:
    def slow(): "Defined on failure."
def blank(): "   "
def escaped(): "A lone \\ud800 surrogate and a \\d."
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    for name, text in {
        "jobs/queues.py": MODULE,
        "jobs/__init__.py": '"The package."',
        "_private.py": '"A private module."',
        "zebra.py": '"The last public module."',
        "jobs/tests/test_queues.py": '"A test."',
        "site-packages/other.py": '"Installed."',
        "idlelib/editor.py": '"IDLE."',
        "python-config.py": '"Not a module."',
        "broken.py": '"Broken." (',
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def test_every_name_that_can_be_reached_has_its_docstring_once(library: Path):
    texts = {docstring.id: docstring.text for docstring in collect_docstrings(library)}
    assert texts == {
        "jobs": "The package.",
        "jobs.queues": "A module.\n\nIts second paragraph.",
        "jobs.queues.Queue": "A queue.",
        "jobs.queues.Queue.put": "Put an item.\n\n    Indented by four.",
        "jobs.queues.Queue.get": "Get an item.",
        "jobs.queues.sort": "As it stands first.",
        "jobs.queues.slow": "Defined on failure.",
        "jobs.queues.escaped": "A lone \\ud800 surrogate and a \\d.",
        "zebra": "The last public module.",
        "_private": "A private module.",
    }


def test_public_modules_come_first_so_that_a_limit_keeps_what_people_look_for(library: Path):
    everything = [docstring.id for docstring in collect_docstrings(library)]
    assert everything[-2:] == ["zebra", "_private"]
    assert [docstring.id for docstring in collect_docstrings(library, limit=3)] == everything[:3]


def test_the_summary_is_the_first_line(library: Path):
    summaries = {docstring.id: docstring.summary for docstring in collect_docstrings(library)}
    assert summaries["jobs.queues"] == "A module."
    assert summaries["jobs.queues.Queue.put"] == "Put an item."


def test_the_standard_library_is_found():
    docstrings = collect_docstrings(standard_library(), limit=1000)
    assert len(docstrings) == 1000
    assert "argparse" in {docstring.id for docstring in docstrings}
    assert all(docstring.text.startswith(docstring.summary) for docstring in docstrings)


def rows(count: int) -> list[Docstring]:
    return [Docstring(f"name.{i}", f"Text {i}.\nMore.", f"Text {i}.") for i in range(count)]


def test_a_file_with_the_same_rows_is_not_touched(tmp_path: Path):
    file = tmp_path / "corpus" / "docstrings.parquet"
    assert write_if_different(docstring_table(rows(5)), file, rows_per_group=2)
    os.utime(file, ns=(1, 1))
    assert not write_if_different(docstring_table(rows(5)), file, rows_per_group=2)
    assert file.stat().st_mtime_ns == 1


def test_a_file_with_other_rows_is_replaced_and_leaves_nothing_beside_it(tmp_path: Path):
    file = tmp_path / "docstrings.parquet"
    write_if_different(docstring_table(rows(5)), file, rows_per_group=2)
    changed = [*rows(4), Docstring("name.4", "Changed.", "Changed.")]
    assert write_if_different(docstring_table(changed), file, rows_per_group=2)
    assert pq.read_table(file).to_pylist()[-1]["text"] == "Changed."
    assert [entry.name for entry in tmp_path.iterdir()] == ["docstrings.parquet"]


def test_the_file_has_a_row_group_for_every_so_many_rows(tmp_path: Path):
    file = tmp_path / "docstrings.parquet"
    write_if_different(docstring_table(rows(5)), file, rows_per_group=2)
    metadata = pq.ParquetFile(file).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 2, 1]
