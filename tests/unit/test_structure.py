"""What the structure rests on and no linter checks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = sorted(
    file.relative_to(REPOSITORY)
    for package in ("command_line", "encoder", "pipelines", "serving")
    for file in (REPOSITORY / package).rglob("*.py")
)

READS_ENVIRONMENT = {Path("pipelines/driver/cluster.py"), Path("serving/serve.py")}
"""The first looks whether anybody listens where Ray will look for a cluster, the second sets the
switches that Ray reads when it is imported; settings come through pydantic."""


def nodes(module: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse((REPOSITORY / module).read_text(encoding="utf-8")))


def environment_reads(module: Path) -> list[int]:
    """Lines that name os.environ or os.getenv, in whatever way they were imported."""
    names = {"environ", "environb", "getenv", "putenv", "unsetenv"}
    lines = []
    for node in nodes(module):
        is_attribute = isinstance(node, ast.Attribute) and node.attr in names
        is_import = isinstance(node, ast.ImportFrom) and node.module == "os"
        if is_attribute or (is_import and any(alias.name in names for alias in node.names)):
            lines.append(node.lineno)
    return lines


def imported_modules(module: Path) -> Iterator[str]:
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_are_modules_to_look_at():
    assert Path("encoder/space.py") in MODULES
    assert Path("pipelines/source/units.py") in MODULES


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_rays_internals_are_not_imported(module: Path):
    internal = ("ray.data._internal", "ray._private", "ray._raylet")
    assert [name for name in imported_modules(module) if name.startswith(internal)] == []


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_the_environment_is_read_where_it_is_allowed_and_nowhere_else(module: Path):
    assert bool(environment_reads(module)) == (module in READS_ENVIRONMENT)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_module_is_named_after_nothing(module: Path):
    assert not {"utils", "util", "common", "helpers", "misc"} & {*module.parts, module.stem}
