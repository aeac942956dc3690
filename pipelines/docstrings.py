"""The docstrings of Python source files as a corpus: parsed with `ast`, nothing is imported.

A docstring's id is its object's qualified name (`json.dumps`, `asyncio.Queue`), which a folder's
layout gives: `asyncio/queues.py` below it is the module `asyncio.queues`.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage import Storage

__all__ = [
    "Docstring",
    "collect_docstrings",
    "docstring_table",
    "standard_library",
    "write_if_different",
]

_LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "idlelib", "__pycache__"}
)
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCHES = (ast.If, ast.Try, ast.ExceptHandler, ast.With)
"""Statements in whose body a module or class may define its names."""


class Docstring(NamedTuple):
    """A row of the corpus.

    Attributes:
        id: Qualified name of the module, class or function.
        text: The docstring, without its indentation.
        summary: Its first line.
    """

    id: str
    text: str
    summary: str


def standard_library() -> Path:
    """Return the folder of this interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def collect_docstrings(folder: Path, limit: int | None = None) -> list[Docstring]:
    """Return the docstrings of all modules below a folder, public modules first.

    Tests, IDLE, installed packages and files that are no modules (`python-config.py`) are left
    out. A name that is defined twice (in the branches of an `if`, a property and its setter) is
    kept once, as it stands first.

    Args:
        folder: Root of the modules' names.
        limit: Stop after so many.
    """
    found = (docstring for file in _modules(folder) for docstring in _docstrings(folder, file))
    unique: dict[str, Docstring] = {}
    for docstring in found:
        if limit is not None and len(unique) >= limit:
            break
        unique.setdefault(docstring.id, docstring)
    return list(unique.values())


def docstring_table(docstrings: Iterable[Docstring]) -> pa.Table:
    """Return docstrings as a table of the columns id, text and summary."""
    schema = pa.schema([(name, pa.string()) for name in Docstring._fields])
    return pa.Table.from_pylist([docstring._asdict() for docstring in docstrings], schema)


def write_if_different(table: pa.Table, file: Path, *, rows_per_group: int) -> bool:
    """Write a table as Parquet, unless the file holds just these rows.

    A file's version is its size and modification time: one that is not touched is not embedded
    again.

    Args:
        table: The rows.
        file: Where to.
        rows_per_group: Rows of a row group.

    Returns:
        Whether it was written.
    """
    if file.exists() and pq.read_table(file).equals(table):
        return False
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=rows_per_group, compression="zstd")
    Storage(str(file.parent)).replace(file.name, sink.getvalue().to_pybytes())
    return True


def _modules(folder: Path) -> Iterator[Path]:
    files = {file.relative_to(folder).with_suffix("").parts: file for file in folder.rglob("*.py")}
    for parts in sorted(files, key=lambda parts: (_is_private(parts), parts)):
        if not _LEFT_OUT.intersection(parts) and all(part.isidentifier() for part in parts):
            yield files[parts]


def _is_private(parts: tuple[str, ...]) -> bool:
    return any(part.startswith("_") and part != "__init__" for part in parts)


def _docstrings(folder: Path, file: Path) -> Iterator[Docstring]:
    parts = file.relative_to(folder).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    with warnings.catch_warnings():
        # Old modules hold escapes ("\d") that the parser warns of.
        warnings.simplefilter("ignore")
        try:
            module = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            # Templates and samples that this interpreter cannot import either.
            return
    yield from _of(module, name)
    yield from _below(module, name)


def _below(parent: ast.AST, prefix: str) -> Iterator[Docstring]:
    """Yield the docstrings of what a module or class defines; not of functions in functions."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, _BRANCHES):
            yield from _below(node, prefix)
        elif isinstance(node, _DEFINITIONS):
            name = f"{prefix}.{node.name}"
            yield from _of(node, name)
            if isinstance(node, ast.ClassDef):
                yield from _below(node, name)


def _of(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[Docstring]:
    text = (ast.get_docstring(node) or "").strip()
    if name and text:
        # A lone surrogate ("\ud800" written as an escape) cannot be stored as UTF-8.
        text = text.encode(errors="backslashreplace").decode()
        yield Docstring(name, text, next(islice(text.splitlines(), 1)))
