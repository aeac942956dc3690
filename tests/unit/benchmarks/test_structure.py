"""Tests use parts of the benchmarks; the benchmarks know nothing of the tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
MODULES = sorted(file.relative_to(REPOSITORY) for file in (REPOSITORY / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_benchmark_imports_nothing_of_the_tests(module: Path):
    imported = set()
    for node in ast.walk(ast.parse((REPOSITORY / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert not imported & {"support", "tests"}
