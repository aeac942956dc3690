r"""Embed a corpus: the entry point of `twofold embed` and of `python -m pipelines.embed_corpus`.

    sources -> pin the output -> units -> Ray Data actors -> index -> retire -> report

Run it again after any failure: it lists what is committed and does the rest.

    python -m pipelines.embed_corpus --input s3://lake/docs/ --output s3://lake/vectors/ \
        --model avsolatorio/NoInstruct-small-Embedding-v0

"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial

from rich.console import Console

from command_line.boundary import run_command
from command_line.parse import parse_settings
from encoder.errors import InvalidInputError, TwofoldError, one_line
from pipelines.actor.events import Event
from pipelines.actor.unit_job import UnitJob
from pipelines.corpus.earlier_shards import EarlierShards
from pipelines.corpus.index import published_index
from pipelines.driver.corpus_plan import Plan, pin_plan, plan_again, plan_corpus
from pipelines.driver.earlier_shards import earlier_shards
from pipelines.driver.order import order_of_work
from pipelines.driver.outcome import Outcome
from pipelines.driver.pool import Pool
from pipelines.driver.progress import Progress
from pipelines.driver.publisher import Publisher
from pipelines.driver.report import REPORT_FILE, RunReport
from pipelines.errors import CorpusError, UnitFailedError, exit_code
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.sources import roots_of
from pipelines.source.units import Source, WorkUnit
from pipelines.storage import Storage, store_errors

__all__ = ["embed_corpus", "main"]

_logger = logging.getLogger("pipelines.embed_corpus")
"""Not `__name__`, which is `__main__` where Ray runs it as a job."""

_JOBS_FOLDERS = "/runtime_resources/working_dir_files/"


def embed_corpus(settings: EmbedCorpusSettings) -> RunReport:
    """Embed a corpus and publish its index; progress goes to stderr.

    Args:
        settings: What to embed, and how.

    Returns:
        The account of the run, which also stands in `_report.json`.

    Raises:
        UnitFailedError: Some units failed; the others are committed and the index is published.
        TwofoldError: See `pipelines.errors`: nothing of what was committed is lost by any of them.
    """
    storage = Storage(settings.output)
    run_id = uuid.uuid4().hex
    # A run that ends before its workers start leaves an earlier run's report: this tells whose.
    _logger.info("run %s", run_id)
    _check_lasting(storage)
    plan = plan_corpus(settings, storage)
    storage.probe_exclusive_create()
    # Before the output is pinned: what is refused here may come again with other settings.
    pool = _start_ray(settings, storage, plan) if plan.todo else None
    plan = pin_plan(plan, storage)
    _logger.info("embedding space %s", plan.pin.space.summary())
    report = RunReport(
        run_id=run_id,
        fingerprint=plan.pin.space.fingerprint,
        output=storage.uri,
        units_planned=len(plan.units),
        units_done_before=len(plan.done),
    )
    problems: list[CorpusError] = []
    try:
        outcome = _embed_units(settings, plan, report, pool) if pool else Outcome({})
        units = _units_after(plan, outcome)
        report.failures = outcome.failures
        report.sources_replanned = len(outcome.replanned)
        if outcome.failures:
            problems.append(UnitFailedError(_failed(outcome.failures, len(units))))
        with store_errors("publish the index"):
            publisher = Publisher(
                settings,
                storage,
                plan.pin,
                units,
                plan.done,
                report,
                abandoned=_abandoned(plan, outcome),
            )
            problems += publisher.publish()
    except BaseException as error:
        # The account must not be an earlier run's.
        ended = "interrupted" if isinstance(error, KeyboardInterrupt) else one_line(error)
        report.problems = [*map(str, problems), ended]
        _write_account_of_failure(storage, report)
        raise
    if problems:
        report.problems = [str(problem) for problem in problems]
        _write_account_of_failure(storage, report)
        raise type(problems[0])("; and ".join(report.problems))
    _write_account(storage, report)
    return report


def _units_after(plan: Plan, outcome: Outcome) -> dict[str, WorkUnit]:
    """Return the units that the corpus consists of now."""
    units = {**{key: plan.units[key] for key in plan.done}, **outcome.units}
    for uri in outcome.replanned:
        # The run saw a newer version than the plan: what was done of the old one is old.
        units = {k: u for k, u in units.items() if u.source.uri != uri or k in outcome.units}
    return units


def _abandoned(plan: Plan, outcome: Outcome) -> dict[str, WorkUnit]:
    """Return the planned units of the sources that the run found gone."""
    gone = outcome.replanned - {unit.source.uri for unit in outcome.units.values()}
    return {key: unit for key, unit in plan.units.items() if unit.source.uri in gone}


def _write_account(storage: Storage, report: RunReport) -> None:
    report.finished_at = time.time()
    storage.replace(REPORT_FILE, report.to_json().encode())


def _write_account_of_failure(storage: Storage, report: RunReport) -> None:
    """Write the account of a run whose own error is about to be raised, and tells more."""
    try:
        _write_account(storage, report)
    except TwofoldError as error:
        _logger.warning("%s could not be written: %s", REPORT_FILE, error)


def _check_lasting(storage: Storage) -> None:
    """Refuse a folder that goes with the job: `ray job submit` runs it in a copy of its own."""
    if storage.is_local and _JOBS_FOLDERS in storage.uri:
        raise InvalidInputError(
            f"--output: expected a folder that outlives the job, found {storage.uri}, in Ray's copy"
            " of --working-dir; give an absolute path or the URI of an object store"
        )


def _start_ray(settings: EmbedCorpusSettings, storage: Storage, plan: Plan) -> Pool:
    # Ray takes seconds to import, which neither help nor a plan waits for.
    from pipelines.driver.cluster import start_ray

    return start_ray(settings, storage, units=len(plan.todo))


def _embed_units(
    settings: EmbedCorpusSettings,
    plan: Plan,
    report: RunReport,
    pool: Pool,
) -> Outcome:
    from pipelines.driver.execute import run_units
    from pipelines.driver.ray_stream import stream_events

    report.actors = pool.max_actors
    job = UnitJob(
        output=report.output,
        pin=plan.pin,
        encoder=settings.encoder.model_copy(
            update={
                "model": plan.model,
                "num_threads": settings.encoder.num_threads or pool.threads,
                "device": pool.device,
            }
        ),
        on_invalid=settings.on_invalid,
        batch_timeout_s=settings.batch_timeout_s,
        run_id=report.run_id,
        earlier=_earlier_shards(settings, plan) if settings.reuse else EarlierShards(),
    )
    begun = pool.max_actors * pool.units_in_flight
    units = {key: plan.units[key] for key in order_of_work(plan.todo, report.run_id, begun)}
    with Progress(units, Console(stderr=True)) as progress:

        def replan(source: Source) -> list[WorkUnit]:
            fresh = plan_again(source, settings)
            progress.add_units(fresh)
            return fresh

        def on_event(event: Event) -> None:
            report.add(event)
            progress.add(event)

        return run_units(
            partial(stream_events, job),
            units,
            pool,
            replan=replan,
            on_event=on_event,
            has_shards=plan.has_shards,
        )


def _earlier_shards(settings: EmbedCorpusSettings, plan: Plan) -> EarlierShards:
    with store_errors("read the index"):
        published = published_index(Storage(settings.output))
    if published is None:
        return EarlierShards()
    return earlier_shards(
        plan.units.values(), plan.todo.values(), published.shards, roots=roots_of(settings.input)
    )


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
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        EmbedCorpusSettings,
        argv,
        prog="twofold embed",
        description="Embed a corpus with Ray Data into Parquet. Run it again to go on.",
    )
    console = Console()
    if settings.dry_run:
        storage = Storage(settings.output)
        for name, value in [*plan_corpus(settings, storage).lines(), ("output", storage.uri)]:
            console.print(f"{name:12} {value}", highlight=False, markup=False, soft_wrap=True)
        return 0
    report = embed_corpus(settings)
    if report.units_done_before == report.units_planned:
        console.print(
            f"nothing to embed: all {report.units_planned:,} work units were done before "
            f"({report.wall_s:.1f} s, space {report.fingerprint})",
            highlight=False,
            soft_wrap=True,
        )
    else:
        console.print(report.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
