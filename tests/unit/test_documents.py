"""What the documents tell a reader to type exists: commands, flags, variables, targets, links."""

from __future__ import annotations

import re
from contextlib import redirect_stdout, suppress
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest

import pipelines.evaluate
import pipelines.export
import twofold
from pipelines.driver.report import RunReport

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *(REPOSITORY / name for name in ("benchmarks/README.md", "k8s/README.md")),
    # The log of decisions speaks of what was, too.
    *(file for file in sorted((REPOSITORY / "docs").glob("*.md")) if file.stem != "decisions"),
]
CODE = re.compile(r"^```[a-z]*\n(.*?)^```|`([^`\n]+(?:\n[^`\n]+)?)`", re.DOTALL | re.MULTILINE)
GROUPS = {"evaluate": pipelines.evaluate, "export": pipelines.export}
"""Commands that are tables of commands themselves."""
BENCHMARKS = [
    f"benchmarks.{file.stem}"
    for file in sorted((REPOSITORY / "benchmarks").glob("*.py"))
    if "\ndef main(" in file.read_text(encoding="utf-8")
]
OF_RAY = {"--working-dir", "--runtime-env-json", "--dashboard-agent-listen-port"}
"""Flags that stand by themselves in a sentence."""
MISTYPED = {"TWOFOLD_API_KEY", "TWOFOLD_ROWS_PER_SHARDS"}
"""Shown as what is refused."""


def named(documents: Path) -> str:
    return str(documents.relative_to(REPOSITORY))


def code_of(document: Path) -> list[str]:
    """Every piece of code, lines that go on joined and comments left out."""
    pieces = []
    for found in CODE.finditer(document.read_text(encoding="utf-8")):
        block, inline = found.groups()
        text = re.sub(r"\\\n\s*", "", block) if block is not None else inline.replace("\n", " ")
        pieces += [re.sub(r"\s#.*", "", line).strip() for line in text.splitlines()]
    return [piece for piece in pieces if piece]


def flags_in(text: str) -> set[str]:
    """The flags of a command; what stands in quotes is a value."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", re.sub(r'"[^"]*"', "", text)))


@pytest.fixture(scope="module")
def flags_of():
    """Return a command's flags by its words, from its own help."""
    known: dict[tuple[str, ...], set[str]] = {}

    def find(*words: str) -> set[str]:
        if words not in known:
            shown = StringIO()
            with redirect_stdout(shown), suppress(SystemExit):
                if words[0] == "twofold":
                    twofold.main([*words[1:], "--help"])
                else:
                    import_module(words[-1]).main(["--help"])
            assert "--help" in shown.getvalue(), words
            known[words] = flags_in(shown.getvalue())
        return known[words]

    return find


def commands() -> list[tuple[str, ...]]:
    simple = [("twofold", name) for name in twofold.COMMANDS if name not in GROUPS]
    return simple + [
        ("twofold", group, name) for group, table in GROUPS.items() for name in table.COMMANDS
    ]


def typed_in(document: Path) -> list[tuple[tuple[str, ...], set[str]]]:
    """Return the commands of ours that a document shows, each with its flags."""
    found = []
    for piece in code_of(document):
        words = re.match(r"(?:\$ )?((?:[\w.|-]+ )*[\w.|-]*)", piece)[1].split()
        if words[:1] == ["twofold"] and words[1:] and words[1] != "COMMAND":
            length = 3 if words[1] in GROUPS else 2
            if len(words) >= length:
                found += [
                    ((*words[: length - 1], last), flags_in(piece))
                    for last in words[length - 1].split("|")
                ]
        elif ours := re.search(r"python -m ((?:benchmarks|pipelines|serving)\.\w+)(.*)", piece):
            found.append((("python", "-m", ours[1]), flags_in(ours[2])))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_command_that_is_shown_exists_with_its_flags(document, flags_of):
    for words, flags in typed_in(document):
        if words[0] == "twofold":
            assert words in commands()
        assert flags <= flags_of(*words), words


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_flag_and_variable_that_is_named_is_a_setting(document, flags_of):
    settings = set().union(*(flags_of(*words) for words in commands()))
    benchmarks = set().union(*(flags_of("python", "-m", name) for name in BENCHMARKS))
    for piece in code_of(document):
        if piece.startswith("--"):
            assert flags_in(piece) <= settings | benchmarks | OF_RAY, piece
        for variable in set(re.findall(r"\bTWOFOLD_[A-Z_]*[A-Z]", piece)) - MISTYPED:
            name = variable.removeprefix("TWOFOLD_").removeprefix("ENCODER__")
            assert f"--{name.lower().replace('_', '-')}" in settings, variable


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_make_target_that_is_named_exists(document):
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for piece in code_of(document):
        if piece.startswith("make "):
            words = [word for word in piece.split()[1:] if "=" not in word]
            assert set(words) <= targets, piece


@pytest.mark.parametrize("package", ["encoder", "pipelines", "serving"])
def test_the_tree_in_the_readme_has_every_module_and_no_other(package):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    tree = re.search(rf"^{package}/.*\n((?:  .*\n)+)", readme, re.MULTILINE)[1]
    shown = {name for row in tree.splitlines() for name in re.findall(r"\b\w+(?:\.py|/)", row[:60])}
    there = {
        f"{entry.name}/" if entry.is_dir() else entry.name
        for entry in (REPOSITORY / package).iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").exists()
    }
    assert shown == there - {"__init__.py"}


def test_every_field_of_the_report_is_explained_and_no_other():
    text = (REPOSITORY / "docs/embedding.md").read_text(encoding="utf-8")
    section = text.partition("\n### The report\n")[2].partition("\n## ")[0]
    fields = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    named = [name for field in fields for name in re.findall(r"`(\w+)`", field)]
    assert sorted(named) == sorted(RunReport("run", "f", "out", 0, 0).to_dict())


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_link_leads_to_a_file_and_a_heading_of_it(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.S | re.M)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_slug(heading) for heading in headings}, link


def _slug(heading: str) -> str:
    """As GitHub makes an anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
