"""`twofold evaluate card`: run all tasks of the model card's table and print ours beside its own.

    twofold evaluate card --output results/            # all 68 rows; days on a CPU, resumable
    twofold evaluate card --types STS --output results/

Unless told otherwise the vectors are not normalised: the card's `get_embedding` does not do it, and
its table shows it (its `dot_spearman` is not its `cos_sim_spearman`). Cosines do not depend on it;
classifiers and clusters do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table

from command_line.boundary import run_command
from command_line.fields import CommaSeparated
from command_line.parse import parse_settings
from encoder.encoder import load_encoder
from encoder.errors import InvalidInputError
from encoder.extras import require_extra
from encoder.settings import EncoderSettings
from pipelines.errors import VerificationError, exit_code
from pipelines.evaluation.card_table import CardRow, CardTable, read_card
from pipelines.evaluation.measurement import (
    ON_THIS_MACHINE,
    JsonSettings,
    ModelIdentity,
    write_json,
)

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from pipelines.evaluation.mteb_run import TaskOutcome

__all__ = ["CardResultSettings", "CardSettings", "ComparedRow", "compare", "main", "select_rows"]


@dataclass(frozen=True)
class ComparedRow:
    """A row of the card beside ours; figures are percentages.

    Attributes:
        name: As the card spells it.
        metric: Main metric of the task, as mteb 2 spells it.
        same_data: Whether the data set is of the revision that the card names.
        card: The card's metrics, by mteb 2's names.
        ours: Our metrics, those that the card has too; empty where the task failed.
    """

    name: str
    metric: str
    same_data: bool
    card: Mapping[str, float]
    ours: Mapping[str, float]

    @property
    def difference(self) -> float | None:
        """Ours less the card's, of the main metric; None where we have none."""
        if self.metric not in self.ours:
            return None
        return self.ours[self.metric] - self.card[self.metric]


class CardResultSettings(JsonSettings):
    """What becomes of the figures. Field descriptions are the command's help."""

    tolerance: float | None = Field(
        None,
        ge=0,
        description="Exit with 8 where a main metric differs from the card's by more points; "
        "unset: differences are shown and not judged",
    )


class CardSettings(BaseModel):
    """What `twofold evaluate card` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: CommaSeparated = Field(
        (), description="Rows to run, as mteb names their tasks (SciFact); unset: all"
    )
    types: CommaSeparated = Field(
        (), description="Types of rows to run (STS, Retrieval, ...); unset: all"
    )
    card: Path | None = Field(
        None, description="JSON of another model's table; unset: that of NoInstruct"
    )
    output: Annotated[Path, ON_THIS_MACHINE] = Field(
        Path("card-results"), description="Folder of the results; a task found there is not run"
    )
    result: CardResultSettings = Field(default_factory=CardResultSettings)
    encoder: EncoderSettings = Field(
        default_factory=EncoderSettings, description="normalize unset: false, as the card"
    )


def select_rows(
    table: CardTable, *, tasks: Sequence[str] = (), types: Sequence[str] = ()
) -> list[CardRow]:
    """Return the rows of some tasks and of some types; all where none is named.

    Raises:
        InvalidInputError: A task or a type does not occur in the table.
    """
    known_tasks = {row.task_name for row in table.results}
    known_types = {row.task for row in table.results}
    for kind, named, known in (("tasks", tasks, known_tasks), ("types", types, known_types)):
        unknown = sorted(set(named) - known)
        if unknown:
            raise InvalidInputError(
                f"--{kind}: expected some of {', '.join(sorted(known))}, found {', '.join(unknown)}"
            )
    return [
        row
        for row in table.results
        if (not tasks or row.task_name in tasks) and (not types or row.task in types)
    ]


def compare(row: CardRow, task: AbsTask, outcome: TaskOutcome) -> ComparedRow:
    """Put what was found beside what the card says.

    Args:
        row: Of the card.
        task: What mteb knows of it.
        outcome: What became of it.

    Raises:
        InvalidInputError: The card does not have the task's main metric.
    """
    metric, card = _main_metric(row, task), row.renamed_metrics()
    found = outcome.scores(row.split, row.config)
    ours = {name: 100 * found[name] for name in card if name in found}
    # A task that is a mean of others has no data of its own; the others are rows, too.
    same_data = task.is_aggregate or task.metadata.revision == row.revision
    return ComparedRow(row.name, metric, same_data, card, ours)


def _main_metric(row: CardRow, task: AbsTask) -> str:
    """Return the metric by which a row is compared; refuse a row that lacks it."""
    metric = task.metadata.main_score
    if metric not in row.renamed_metrics():
        raise InvalidInputError(
            f"expected {metric} among the metrics of {row.name}, found "
            f"{', '.join(row.renamed_metrics()) or 'none'}; add it, or name other rows by --tasks"
        )
    return metric


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        CardSettings,
        argv,
        prog="twofold evaluate card",
        description="Run the tasks of the model card's MTEB table and print ours beside the "
        "card's. The data come from the Hugging Face hub; every task that is done is kept.",
    )
    require_extra("evaluate", "mteb")
    # Imported here: mteb is in an extra, and takes seconds.
    from pipelines.evaluation.mteb_encoder import MtebEncoder
    from pipelines.evaluation.mteb_run import find_task, require_done, run_tasks

    rows = select_rows(read_card(settings.card), tasks=settings.tasks, types=settings.types)
    tasks = [find_task(row.task_name, splits=(row.split,), subsets=row.subsets) for row in rows]
    for row, task in zip(rows, tasks, strict=True):
        _main_metric(row, task)  # A task may take hours, and none would be compared afterwards.
    encoder = load_encoder(_as_the_card(settings.encoder))
    model = MtebEncoder(encoder)
    console = Console(highlight=False, markup=False)
    outcomes, compared = [], []
    for row, task, outcome in zip(
        rows, tasks, run_tasks(tasks, model, settings.output), strict=True
    ):
        outcomes.append(outcome)
        compared.append(compare(row, task, outcome))
        line = f"{row.name}: {outcome.error}" if outcome.error else _line(compared[-1])
        console.print(f"[{len(outcomes)}/{len(rows)}] {line}", soft_wrap=True)
    identity = ModelIdentity.of(encoder)
    console.print(f"\n{identity}", soft_wrap=True)
    console.print(_table(compared))
    if settings.result.json is not None:
        content = {"model": asdict(identity), "rows": [asdict(row) for row in compared]}
        write_json(settings.result.json, content)
    require_done(outcomes)
    _check(compared, settings.result.tolerance)
    return 0


def _as_the_card(settings: EncoderSettings) -> EncoderSettings:
    if settings.normalize is not None:
        return settings
    return settings.model_copy(update={"normalize": False})


def _line(row: ComparedRow) -> str:
    if row.difference is None:
        return f"{row.name}: no {row.metric}"
    return f"{row.name}: {row.metric} {row.ours[row.metric]:.2f}, {row.difference:+.2f}"


def _table(rows: Sequence[ComparedRow]) -> Table:
    table = Table(caption="* the data set is of another revision than the card's")
    for name in ("task", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("card", "ours", "difference"):
        table.add_column(name, justify="right")
    for row in rows:
        ours = "none" if row.difference is None else f"{row.ours[row.metric]:.2f}"
        difference = "" if row.difference is None else f"{row.difference:+.2f}"
        table.add_row(
            row.name.removeprefix("MTEB ") + ("" if row.same_data else " *"),
            row.metric,
            f"{row.card[row.metric]:.2f}",
            ours,
            difference,
        )
    return table


def _check(rows: Sequence[ComparedRow], tolerance: float | None) -> None:
    if tolerance is None:
        return
    off = [
        row
        for row in rows
        # Not `>`: a score that is NaN is off, too.
        if row.difference is None or not abs(row.difference) <= tolerance
    ]
    if off:
        raise VerificationError(
            f"expected the card's scores within {tolerance:g} points, found {len(off)} of "
            f"{len(rows)} off: " + "; ".join(_line(row) for row in off)
        )
