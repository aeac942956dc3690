"""`twofold verify`: whether a corpus is what it says, from its names down to its vectors.

    twofold verify --output s3://lake/vectors/                 # shards, footers, index, ids
    twofold verify --output s3://lake/vectors/ --sample 100    # and 100 rows embedded again
    twofold verify --output s3://lake/vectors/ --source        # and every text read again

Nothing is written. Everything that is off is a line that names the shard, and the exit code is 8.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table

from command_line.boundary import run_command, shown
from command_line.fields import AUTO_IS_UNSET, Location
from command_line.parse import parse_settings
from encoder.errors import SpaceMismatchError
from encoder.probe_vectors import ProbeVectors
from encoder.settings import EncoderSettings
from pipelines.corpus.conservation import conservation_problems
from pipelines.corpus.corpus_model import CorpusModel, find_corpus_model
from pipelines.corpus.ids import find_duplicate_ids
from pipelines.corpus.index import IndexedShard, list_shards
from pipelines.corpus.pin import Pin, require_pin
from pipelines.corpus.probe_vectors import read_probe_vectors
from pipelines.corpus.shards import DATA, REJECTS, ShardName
from pipelines.errors import CorpusError, VerificationError, exit_code
from pipelines.source.units import Format
from pipelines.storage import Storage
from pipelines.verification.index_check import (
    gap_problems,
    index_problems,
    unit_problems,
    version_problems,
)
from pipelines.verification.sample_check import check_sample
from pipelines.verification.shard_check import CheckedShard, check_shard
from pipelines.verification.source_check import check_sources

__all__ = ["VerifyReport", "VerifySettings", "main", "verify"]

_READ_THREADS = 8


class VerifySettings(BaseModel):
    """What `twofold verify` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Location = Field(description="Output folder of `twofold embed`, or its URI")
    sample: int = Field(
        0,
        ge=0,
        description="Rows to embed again in float32 by the model card's code, from texts that are "
        "read again; they are spread over the shards, and the same on every run",
    )
    source: bool = Field(
        False, description="Read every text of every source again and compare ids and hashes"
    )
    model: str | None = Field(
        None, description="Model for --sample, by its reference; unset: the one the corpus names"
    )
    input_format: Annotated[Format | None, AUTO_IS_UNSET] = Field(
        None, description="Format of the sources, where it was given to `twofold embed`"
    )


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at, and what was found.

    Attributes:
        shards: Shards that exist.
        rows: Rows that their footers count.
        sources: Source files that they name.
        rejected: Source rows in rejects files, as footers count them.
        sampled: Rows that were embedded again.
        min_cosine: Least cosine of a stored vector with the one made again; None without sample.
        mean_cosine: Mean of these cosines.
        findings: What is off, a line each; empty for a corpus that is as it should be.
    """

    shards: int
    rows: int
    sources: int
    rejected: int
    sampled: int
    min_cosine: float | None
    mean_cosine: float | None
    findings: tuple[str, ...]

    def table(self) -> Table:
        """Return the table that a terminal shows."""
        table = Table(title="twofold verify", show_header=False, title_justify="left")
        table.add_column()
        table.add_column(justify="right")
        for name in ("shards", "rows", "sources", "rejected"):
            table.add_row(name, f"{getattr(self, name):,}")
        if self.min_cosine is not None and self.mean_cosine is not None:
            table.add_row("rows embedded again", f"{self.sampled:,}")
            table.add_row("min cosine", f"{self.min_cosine:.7f}")
            table.add_row("mean cosine", f"{self.mean_cosine:.7f}")
        table.add_row("findings", f"{len(self.findings):,}")
        return table


def verify(settings: VerifySettings) -> VerifyReport:
    """Look at a corpus; see the module.

    Returns:
        What was found. A finding is no exception: all of them are reported.

    Raises:
        CorpusError: There is no corpus there, or a job works on what was found to be off.
        SpaceMismatchError: `--model` is not the corpus' model.
        ModelLoadError: The corpus' model is not there.
    """
    storage = Storage(settings.output)
    pin = require_pin(storage)
    # Before all shards are read: a wrong --model is known at once.
    model = _model(pin, settings) if settings.sample else None
    sizes = list_shards(storage)
    checked = _check_shards(storage, pin, sizes)
    shards = [shard for found in checked if (shard := found.indexed) is not None]
    unreadable = {found.name for found in checked if not found.is_readable}
    readable = [shard for shard in shards if shard.name not in unreadable]
    findings = [problem for found in checked for problem in found.problems]
    findings += _foreign_files(storage)
    probe, problems = _probe_vectors(storage, pin)
    findings += problems
    findings += unit_problems(list(sizes))
    findings += index_problems(storage, pin, sizes, shards)
    findings += version_problems(shards)
    findings += gap_problems(shards) if len(shards) == len(sizes) else ()
    findings += _conservation(sizes, shards)
    findings += _duplicates(storage, pin, readable)
    cosines: list[float] = []
    if model is not None:
        sample = check_sample(
            storage,
            pin,
            readable,
            count=settings.sample,
            model=model,
            probe=probe,
            input_format=settings.input_format,
        )
        cosines = sample.cosines.tolist()
        findings += sample.problems
    if settings.source:
        findings += check_sources(
            storage,
            pin,
            readable,
            units={name.unit for name in sizes},
            input_format=settings.input_format,
        )
    _check_not_at_work(storage, sizes, findings)
    return VerifyReport(
        shards=len(sizes),
        rows=sum(shard.footer.rows for shard in shards),
        sources=len({shard.footer.source for shard in shards}),
        rejected=sum(shard.footer.rejected for shard in shards),
        sampled=len(cosines),
        min_cosine=min(cosines) if cosines else None,
        mean_cosine=sum(cosines) / len(cosines) if cosines else None,
        findings=tuple(dict.fromkeys(findings)),
    )


def _model(pin: Pin, settings: VerifySettings) -> CorpusModel:
    given = EncoderSettings() if settings.model is None else EncoderSettings(model=settings.model)
    return find_corpus_model(pin, given)


def _check_shards(storage: Storage, pin: Pin, sizes: Mapping[ShardName, int]) -> list[CheckedShard]:
    rejects = storage.sizes(REJECTS)

    def check(name: ShardName) -> CheckedShard:
        has_rejects = str(name) in rejects
        return check_shard(storage, pin, name, size_bytes=sizes[name], has_rejects=has_rejects)

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        return list(pool.map(check, sorted(sizes)))


def _check_not_at_work(
    storage: Storage, sizes: Mapping[ShardName, int], findings: Sequence[str]
) -> None:
    """Refuse findings on shards that came or went since they were listed: a job's, no damage."""
    changed = sizes.keys() ^ list_shards(storage).keys() if findings else set()
    for name in map(str, sorted(changed)):
        if any(name in finding for finding in findings):
            raise CorpusError(
                f"{storage.below(DATA)}/{name} came or went meanwhile: a job works on the corpus; "
                "verify it afterwards"
            )


def _foreign_files(storage: Storage) -> Iterator[str]:
    """Yield Parquet files among the shards that are none: readers of the folder would read them."""
    for name in storage.sizes(DATA):
        if name.endswith(".parquet") and ShardName.parse(name) is None:
            yield f"{DATA}/{name}: is not a shard of twofold; move it elsewhere"


def _probe_vectors(storage: Storage, pin: Pin) -> tuple[ProbeVectors | None, tuple[str, ...]]:
    """Return what the corpus keeps, and what is wrong with the file."""
    try:
        return read_probe_vectors(storage, pin.space), ()
    except SpaceMismatchError as error:
        return None, (str(error),)


def _conservation(sizes: Mapping[ShardName, int], shards: Sequence[IndexedShard]) -> list[str]:
    """Return what does not add up in units of which every footer can be read."""
    known = {shard.name for shard in shards}
    unread = {name.unit for name in sizes if name not in known}
    return conservation_problems(shard for shard in shards if shard.name.unit not in unread)


def _duplicates(storage: Storage, pin: Pin, shards: Sequence[IndexedShard]) -> Iterator[str]:
    try:
        found = find_duplicate_ids(
            storage,
            [shard.name for shard in shards],
            id_column=pin.layout.id_column,
            rows=sum(shard.footer.rows for shard in shards),
        )
    except (CorpusError, FileNotFoundError) as error:
        yield f"{error}; ids were not compared"
        return
    for identity, chunk, names in found:
        yield f"{' and '.join(sorted(set(names)))}: id {identity!r}, chunk {chunk}, is not unique"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        VerifySettings,
        argv,
        prog="twofold verify",
        description="Check a corpus: every shard, the index, ids and vectors. Nothing is written.",
    )
    report = verify(settings)
    Console().print(report.table())
    for finding in report.findings:
        sys.stdout.write(f"{shown(finding)}\n")
    if report.findings:
        raise VerificationError(
            f"expected a corpus without findings, found {len(report.findings)} in "
            f"{settings.output}: {report.findings[0]}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
