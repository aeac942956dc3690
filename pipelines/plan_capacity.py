r"""`twofold plan`: what embedding a corpus would take on a fleet: hours, bytes, files, the limit.

    twofold plan --input s3://lake/docs/ --gpus 8xH100 --tokens-per-s 2e6 --cpus 64
    twofold plan --input docs/ --cpus 16

Reads a bounded sample with the job's readers and the model's tokenizer, and writes nothing. The
rate of cores is measured here; that of GPUs is given, or assumed and then says so. (What a run
would do, unit by unit, is `twofold embed --dry-run`.)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from command_line.boundary import run_command
from command_line.parse import parse_settings
from encoder.model.description import ModelDescription, describe_model
from encoder.tokenizer import Tokenized
from pipelines.actor.prepare import LongTexts
from pipelines.capacity.account import CapacityPlan
from pipelines.capacity.estimate import estimate
from pipelines.capacity.fleet import Fleet, Rate, rate_without_probe
from pipelines.capacity.probe import probe_forward, probe_shard
from pipelines.capacity.sample import CorpusSample, sample_corpus
from pipelines.capacity.settings import PlanSettings
from pipelines.capacity.store_requests import store_requests
from pipelines.capacity.strata import mean_context
from pipelines.capacity.tokenizing import tokenizing_encoder
from pipelines.corpus.pin import CorpusLayout, Pin
from pipelines.driver.report import installed_versions
from pipelines.errors import exit_code
from pipelines.settings import OnLong
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.documents import infer_columns
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources
from pipelines.source.units import Format, WorkUnit
from pipelines.storage import store_errors

__all__ = ["main", "plan_capacity"]


def plan_capacity(settings: PlanSettings) -> CapacityPlan:
    """Sample a corpus, measure what can be measured here, and compute the rest.

    Raises:
        InvalidInputError: The inputs are not what the settings say, or a GPU's rate is unknown.
        ModelLoadError: The model's files cannot be read.
        StorageError: The store did not answer.
    """
    fleet = Fleet.of(settings)
    model = describe_model(settings.encoder)
    config = model.files.config
    # A missing rate is said before anything is read.
    rate_without_probe(settings, config, model.space.max_seq_length)
    with store_errors("read the inputs"):
        columns, units = _units(settings)
        sample = sample_corpus(
            units,
            columns,
            tokenizing_encoder(model),
            role=settings.role,
            long_texts=LongTexts(settings.on_long, settings.chunk_overlap),
            sample_bytes=settings.sample_bytes,
            sample_documents=settings.sample_documents,
        )
        shard = probe_shard(sample.prepared, units[0], _pin(settings, columns, model))
    rate = rate_without_probe(settings, config, mean_context(sample.strata))
    if rate is None:
        rate = _measured(settings, sample)
    sources = {unit.source for unit in units}
    input_bytes = sum(source.size_bytes for source in sources)
    found = estimate(sample, shard, fleet, rate, rows_per_shard=settings.rows_per_shard)
    return CapacityPlan(
        files=len(sources),
        input_bytes=input_bytes,
        sample=sample,
        fleet=fleet,
        rate=rate,
        estimate=found,
        requests=store_requests(
            files=len(sources),
            parquet_files=sum(source.format is Format.PARQUET for source in sources),
            input_bytes=input_bytes,
            units=found.units,
            shards=found.shards,
        ),
    )


def _units(settings: PlanSettings) -> tuple[CorpusColumns, list[WorkUnit]]:
    sources = list_sources(settings.input, settings.input_format)
    columns = infer_columns(
        sources,
        id_column=settings.id_column,
        text_columns=settings.text_column,
        pass_through=settings.columns,
    )
    units = plan_units(sources, unit_bytes=settings.unit_bytes, tolerate_unreadable=False)
    return columns, units


def _pin(settings: PlanSettings, columns: CorpusColumns, model: ModelDescription) -> Pin:
    layout = CorpusLayout(
        role=settings.role.value,
        id_column=columns.id_column,
        text_columns=columns.text_columns,
        carried=tuple((column.name, str(column.type)) for column in columns.carried),
        embedding_dtype=settings.embedding_dtype,
        on_long=settings.on_long.value,
        chunk_overlap=settings.chunk_overlap if settings.on_long is OnLong.CHUNK else 0,
        rows_per_shard=settings.rows_per_shard,
        unit_bytes=settings.unit_bytes,
    )
    return Pin(model.space, layout, columns.carried, {**model.provenance, **installed_versions()})


def _measured(settings: PlanSettings, sample: CorpusSample) -> Rate:
    tokenized = Tokenized.join([part.tokenized for part in sample.prepared])
    probe = probe_forward(settings.encoder, tokenized, settings.role, at_least_s=settings.probe_s)
    return Rate(
        probe.tokens_per_s / probe.threads,
        "measured",
        f"here, {probe.backend} on {probe.threads} cores for {probe.seconds:.0f} s; that more "
        "cores are as fast each is assumed",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        PlanSettings,
        argv,
        prog="twofold plan",
        description="Estimate what embedding a corpus would take on a fleet, from a sample of it. "
        "Writes nothing.",
    )
    plan = plan_capacity(settings)
    if settings.json_lines:
        sys.stdout.write(json.dumps(plan.to_dict()) + "\n")
        return 0
    table = Table(title="twofold plan", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in plan.lines():
        table.add_row(name, Text(value))
    Console().print(table, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
