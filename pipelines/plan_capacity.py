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
from encoder.model.description import describe_model
from encoder.role_tokenizer import RoleTokenizer
from encoder.tokenizer import Tokenized
from pipelines.actor.prepare import LongTexts
from pipelines.capacity.account import CapacityPlan
from pipelines.capacity.estimate import estimate
from pipelines.capacity.fleet import Fleet, Rate, rate_without_probe
from pipelines.capacity.probe import probe_forward, probe_shard
from pipelines.capacity.settings import PlanSettings
from pipelines.capacity.store_requests import store_requests
from pipelines.driver.corpus_plan import pin_of
from pipelines.driver.inputs import look_at_inputs
from pipelines.errors import exit_code
from pipelines.sampling.sample import CorpusSample, sample_corpus
from pipelines.sampling.strata import mean_context
from pipelines.source.plan import plan_units
from pipelines.source.units import Format
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
    listed, columns = look_at_inputs(settings, pass_through=settings.columns)
    pin = pin_of(settings, columns, model)
    columns.require_types()
    with store_errors("read the inputs"):
        units = plan_units(listed, unit_bytes=settings.unit_bytes, tolerate_unreadable=False)
        sample = sample_corpus(
            units,
            columns,
            RoleTokenizer.read(model.space, model.files.tokenizer),
            role=settings.role,
            long_texts=LongTexts(settings.on_long, settings.chunk_overlap),
            sample_bytes=settings.sample_bytes,
            sample_documents=settings.sample_documents,
        )
        shard = probe_shard(sample.prepared, units[0], pin)
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
