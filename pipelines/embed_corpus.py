r"""Embed a corpus: the entry point of `twofold embed` and of `python -m pipelines.embed_corpus`.

    sources -> pin the output -> units -> Ray Data actors -> index -> retire -> report

Run it again after any failure: it lists what is committed and does the rest.

    python -m pipelines.embed_corpus --input s3://lake/docs/ --output s3://lake/vectors/ \
        --model avsolatorio/NoInstruct-small-Embedding-v0

"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import ray
from rich.console import Console

from encoder.errors import InvalidInputError
from encoder.model.description import describe_model
from pipelines.actor.events import Event
from pipelines.actor.unit_job import UnitJob
from pipelines.command_line import parse_settings, run_command
from pipelines.corpus.pin import CorpusLayout, Pin, check_pin, pin_output
from pipelines.corpus.shards import DATA, group_by_unit
from pipelines.driver.execute import Outcome, run_units
from pipelines.driver.pool import Pool, plan_pool
from pipelines.driver.progress import Progress
from pipelines.driver.publish import publish
from pipelines.driver.report import REPORT_FILE, RunReport, installed_versions
from pipelines.errors import UnitFailedError
from pipelines.settings import EmbedCorpusSettings, OnInvalid, OnLong
from pipelines.source.documents import infer_columns
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources
from pipelines.source.units import Source, WorkUnit
from pipelines.storage import Storage, store_errors

__all__ = ["Plan", "embed_corpus", "main", "plan_corpus"]

_LOG = logging.getLogger("twofold.embed")


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        sources: The input files.
        pin: Space and layout of what it would write.
        units: All work units, by key.
        done: Keys of the units that are complete in the output.
    """

    sources: list[Source]
    pin: Pin
    units: dict[str, WorkUnit]
    done: frozenset[str]

    @property
    def todo(self) -> dict[str, WorkUnit]:
        """The units that are not complete."""
        return {key: unit for key, unit in self.units.items() if key not in self.done}

    def lines(self) -> list[tuple[str, str]]:
        """Return the plan as (name, value) lines."""
        units, todo = self.units.values(), self.todo.values()
        rows = [unit.rows for unit in units]
        known = sum(row for row in rows if row is not None)
        unknown = sum(row is None for row in rows)
        beyond = f" and those of {unknown:,} units not known before they are read"
        return [
            ("files", f"{len(self.sources):,}"),
            ("bytes", f"{sum(source.size_bytes for source in self.sources):,}"),
            ("work units", f"{len(self.units):,}"),
            ("rows", f"{known:,}{beyond if unknown else ''}"),
            ("units done", f"{len(self.done):,}"),
            ("units to do", f"{len(self.todo):,}"),
            ("bytes to do", f"{sum(unit.size_bytes for unit in todo):,}"),
            ("space", self.pin.space.fingerprint),
        ]


def plan_corpus(settings: EmbedCorpusSettings, storage: Storage) -> Plan:
    """Plan a run; writes nothing.

    Raises:
        InvalidInputError: The inputs or their columns are not what the settings say.
        ModelLoadError: The model's space cannot be read.
        SpaceMismatchError: The output holds another space.
        LayoutMismatchError: The output has another layout.
    """
    with store_errors("read the inputs"):
        sources = list_sources(settings.input, settings.input_format)
        columns = infer_columns(
            sources,
            id_column=settings.id_column,
            text_columns=settings.text_column,
            pass_through=settings.columns,
        )
    model = describe_model(settings.encoder)
    if settings.on_long is OnLong.CHUNK and 2 * settings.chunk_overlap > model.space.max_seq_length:
        raise InvalidInputError(
            f"--chunk-overlap {settings.chunk_overlap} is more than half of max_seq_length "
            f"({model.space.max_seq_length}): chunks would hardly move; lower it"
        )
    wanted = Pin(
        space=model.space,
        layout=CorpusLayout.of(settings, columns),
        carried=columns.carried,
        provenance={**model.provenance, **installed_versions()},
    )
    pin = check_pin(storage, wanted)
    with store_errors("plan the inputs"):
        units = _units_of(sources, settings)
    committed = group_by_unit(storage.sizes(DATA))
    done = frozenset(u.key for u in units if u.key in committed and committed[u.key].complete)
    return Plan(sources, pin, {unit.key: unit for unit in units}, done)


def _units_of(sources: Sequence[Source], settings: EmbedCorpusSettings) -> list[WorkUnit]:
    return plan_units(
        sources,
        unit_bytes=settings.unit_bytes,
        tolerate_unreadable=settings.on_invalid is OnInvalid.REJECT,
    )


def embed_corpus(settings: EmbedCorpusSettings, console: Console | None = None) -> RunReport:
    """Embed a corpus and publish its index.

    Args:
        settings: What to embed, and how.
        console: Where progress goes; stderr if not given.

    Returns:
        The account of the run, which also stands in `_report.json`.

    Raises:
        UnitFailedError: Some units failed; the others are committed and the index is published.
        TwofoldError: See `pipelines.errors`: nothing of what was committed is lost by any of them.
    """
    console = console or Console(stderr=True)
    storage = Storage(settings.output)
    plan = plan_corpus(settings, storage)
    storage.probe_exclusive_create()
    plan = replace(plan, pin=pin_output(storage, plan.pin))
    report = RunReport(
        run_id=uuid.uuid4().hex,
        fingerprint=plan.pin.space.fingerprint,
        output=storage.uri,
        units_planned=len(plan.units),
        units_done_before=len(plan.done),
    )
    outcome = _embed_units(settings, plan, report, storage, console)
    units = {**{key: plan.units[key] for key in plan.done}, **outcome.units}
    for uri in outcome.replanned:
        # The run saw a newer version than the plan: what was done of the old one is old.
        units = {k: u for k, u in units.items() if u.source.uri != uri or k in outcome.units}
    report.failures = outcome.failures
    report.sources_replanned = len(outcome.replanned)
    problem = publish(settings, storage, plan.pin, units, plan.done, report)
    report.finished_at = time.time()
    storage.replace(REPORT_FILE, report.to_json().encode())
    if outcome.failures:
        raise UnitFailedError(_failed(outcome.failures, len(units)))
    if problem is not None:
        raise problem
    return report


def _embed_units(
    settings: EmbedCorpusSettings,
    plan: Plan,
    report: RunReport,
    storage: Storage,
    console: Console,
) -> Outcome:
    if not plan.todo:
        return Outcome({})
    pool = _start_ray(settings, storage, units=len(plan.todo))
    report.actors = pool.max_actors
    job = UnitJob(
        output=storage.uri,
        pin=plan.pin,
        encoder=settings.encoder.model_copy(update={"num_threads": pool.threads}),
        on_invalid=settings.on_invalid,
        batch_timeout_s=settings.batch_timeout_s,
        run_id=report.run_id,
    )
    # In an order of its own, so that two jobs on one output meet seldom.
    order = random.Random(report.run_id).sample(sorted(plan.todo), len(plan.todo))
    units = {key: plan.units[key] for key in order}
    with Progress(units, console) as progress:

        def replan(source: Source) -> list[WorkUnit]:
            with store_errors(f"plan {source.uri} again"):
                found = list_sources([source.root], settings.input_format)
                return _units_of([s for s in found if s.uri == source.uri], settings)

        def on_event(event: Event) -> None:
            report.add(event)
            progress.add(event)

        return run_units(job, units, pool, replan=replan, on_event=on_event)


def _start_ray(settings: EmbedCorpusSettings, storage: Storage, *, units: int) -> Pool:
    """Connect to the cluster that there is, or start one here; check that it can do the work."""
    joined = ray.is_initialized() or "RAY_ADDRESS" in os.environ
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR)
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if storage.is_local and len(alive) > 1 and not settings.shared_filesystem:
        raise InvalidInputError(
            f"--output {storage.uri} is a local folder and the cluster has {len(alive)} nodes: "
            "each would write its own; give an object-store URI, or --shared-filesystem if all "
            "nodes mount the same folder there"
        )
    pool = plan_pool(settings, [node["Resources"] for node in alive], units=units)
    wanted = f"{pool.num_cpus:g} CPUs and {pool.num_gpus:g} GPUs"
    if not pool.fits_now and not joined:
        raise InvalidInputError(
            f"an actor needs {wanted}, and this machine has not as much; lower "
            "--num-cpus-per-actor or --num-gpus-per-actor"
        )
    if not pool.fits_now:
        _LOG.warning("no node has %s free of other use; waiting for one to join", wanted)
    _LOG.info("%d to %d actors of %s", pool.min_actors, pool.max_actors, wanted)
    return pool


def _failed(failures: Mapping[str, str], units: int) -> str:
    shown = list(failures.values())[:5]
    more = len(failures) - len(shown)
    rest = f"; and {more:,} more, see {REPORT_FILE}" if more else ""
    return (
        f"{len(failures):,} of {units:,} work units failed; the others are committed, and the next "
        f"run goes on from there: {'; '.join(shown)}{rest}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    return run_command(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        EmbedCorpusSettings,
        argv,
        prog="twofold embed",
        description="Embed a corpus with Ray Data into Parquet. Run it again to go on.",
    )
    console = Console()
    if settings.dry_run:
        for name, value in plan_corpus(settings, Storage(settings.output)).lines():
            console.print(f"{name:12} {value}", highlight=False)
        return 0
    report = embed_corpus(settings)
    if report.units_done_before == report.units_planned:
        console.print(
            f"nothing to embed: all {report.units_planned:,} work units were done before "
            f"({report.wall_s:.1f} s, space {report.fingerprint})",
            highlight=False,
        )
    else:
        console.print(report.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
