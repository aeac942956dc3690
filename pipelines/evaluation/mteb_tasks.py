"""`twofold evaluate mteb`: run tasks of the mteb package, resumable task by task.

    twofold evaluate mteb --tasks STSBenchmark SciFact --output results/

Their data comes from the Hugging Face hub. The results are mteb's own files; a task that is done is
not run again, in this folder and for these vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from command_line.boundary import run_command
from command_line.fields import CommaSeparated
from command_line.parse import parse_settings
from encoder.encoder import load_encoder
from encoder.extras import require_extra
from encoder.settings import EncoderSettings
from pipelines.errors import exit_code
from pipelines.evaluation.expectation import parse_expectations
from pipelines.evaluation.measurement import (
    ON_THIS_MACHINE,
    Measurement,
    ModelIdentity,
    ResultSettings,
    check,
    show,
)

__all__ = ["MtebSettings", "main"]


class MtebSettings(BaseModel):
    """What `twofold evaluate mteb` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: CommaSeparated = Field(min_length=1, description="Names as mteb spells them")
    splits: CommaSeparated = Field((), description="Unset: all splits that mteb evaluates")
    subsets: CommaSeparated = Field(
        (), description="Of tasks that have some (languages); unset: all"
    )
    output: Annotated[Path, ON_THIS_MACHINE] = Field(
        Path("mteb-results"), description="Folder of the results; a task found there is not run"
    )
    result: ResultSettings = Field(default_factory=ResultSettings)
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        MtebSettings,
        argv,
        prog="twofold evaluate mteb",
        description="Run tasks of the mteb package: its queries are embedded as queries, "
        "everything else as documents. --expect TASK=VALUE compares a task's main score.",
    )
    require_extra("evaluate", "mteb")
    # Imported here: mteb is in an extra, and takes seconds.
    from pipelines.evaluation.mteb_encoder import MtebEncoder
    from pipelines.evaluation.mteb_run import find_task, require_done, run_tasks

    parse_expectations(settings.result.expect, settings.tasks)
    tasks = [
        find_task(name, splits=settings.splits, subsets=settings.subsets) for name in settings.tasks
    ]
    encoder = load_encoder(settings.encoder)
    model = MtebEncoder(encoder)
    console = Console(highlight=False, markup=False)
    outcomes = list(
        run_tasks(tasks, model, settings.output, started=lambda name: console.print(f"{name} ..."))
    )
    metrics = {
        outcome.name: outcome.main_score for outcome in outcomes if outcome.main_score is not None
    }
    counts = {
        "tasks": len(outcomes),
        "tasks failed": len(outcomes) - len(metrics),
        "texts encoded": model.texts,
        "texts truncated": model.truncated,
    }
    measurement = Measurement("mteb, main scores", (str(settings.output),), counts, metrics)
    show(measurement, ModelIdentity.of(encoder), settings.result, console)
    require_done(outcomes)
    check(measurement, settings.result)
    return 0
