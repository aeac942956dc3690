"""Runs tasks of mteb one after the other, each result kept in a file, none run twice.

The files are mteb's own (`mteb.ResultCache`), so its tools read them and its leaderboard takes
them. A task that fails (its data cannot be reached, a loader of somebody else's raises) does not
stop the others. Needs the extra `evaluate`; import it when a task is to be run.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import mteb
from mteb.abstasks import AbsTask
from mteb.results import TaskResult

from encoder.errors import InvalidInputError, one_line
from pipelines.corpus.probe_vectors import agree_on_probe_vectors
from pipelines.errors import UnitFailedError
from pipelines.evaluation.mteb_encoder import MtebEncoder
from pipelines.storage import Storage

if TYPE_CHECKING:
    from mteb.types import EncodeKwargs

__all__ = ["TaskOutcome", "find_task", "require_done", "run_tasks"]

_ENCODER = "encoder"
"""Folder for what tells the encoder, beside its results: mteb takes every file there for one."""
_DATALOADER_BATCH = 512
"""Texts that mteb hands over at once; they are put together again before they are encoded."""


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task.

    Attributes:
        name: The task's name.
        result: mteb's result, of the splits and subsets that were asked for; None where the task
            failed.
        error: One line where it failed.
    """

    name: str
    result: TaskResult | None = None
    error: str | None = None

    @property
    def main_score(self) -> float | None:
        """Mean of the main score over what was asked for of the task, as a fraction of 1."""
        return None if self.result is None else float(self.result.get_score())

    def scores(self, split: str, subset: str) -> dict[str, float]:
        """Return the figures of one split and subset, as fractions of 1; none where it failed."""
        if self.result is None:
            return {}
        for scores in self.result.scores.get(split, []):
            if scores["hf_subset"] == subset:
                return {
                    name: value for name, value in scores.items() if isinstance(value, (int, float))
                }
        return {}


def find_task(name: str, *, splits: Sequence[str] = (), subsets: Sequence[str] = ()) -> AbsTask:
    """Return a task of mteb; its data is not loaded.

    Args:
        name: As mteb spells it ("STSBenchmark").
        splits: The ones to run; none: all that mteb evaluates.
        subsets: Likewise; languages, mostly. Passed over where the task has none.

    Raises:
        InvalidInputError: mteb knows no such task, split or subset.
    """
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise InvalidInputError(
            f"expected a task of mteb {mteb.__version__}, found {name!r}: {error.args[0]}"
        ) from error
    asked = tuple(subsets) if task.metadata.is_multilingual else ()
    _require_known(name, "splits", splits, task.metadata.eval_splits)
    _require_known(name, "subsets", asked, task.hf_subsets)
    task.filter_eval_splits(splits or None)
    task.filter_languages(None, hf_subsets=asked or None)
    return task


def _require_known(task: str, kind: str, asked: Sequence[str], known: Sequence[str]) -> None:
    unknown = sorted(set(asked).difference(known))
    if unknown:
        raise InvalidInputError(
            f"expected {kind} of {task} ({', '.join(known)}), found {', '.join(unknown)}"
        )


def run_tasks(
    tasks: Sequence[AbsTask],
    model: MtebEncoder,
    output: Path,
    *,
    started: Callable[[str], None] = lambda name: None,
) -> Iterator[TaskOutcome]:
    """Run tasks in their order; yield each outcome when it is known.

    Args:
        tasks: Not loaded yet; a task whose result is in `output` is not loaded at all.
        model: Encodes the texts.
        output: Folder for `results/<model>/<revision>/<task>.json`.
        started: Called with a task's name before it runs.

    Raises:
        SpaceMismatchError: The model computes other vectors than the one whose results are kept.
    """
    cache = mteb.ResultCache(output)
    results = cache.get_task_result_path("any", model.mteb_model_meta).parent
    agree_on_probe_vectors(Storage(str(results / _ENCODER)), model.encoder)
    for task in tasks:
        started(task.metadata.name)
        yield _outcome(task, model, cache)


def require_done(outcomes: Sequence[TaskOutcome]) -> None:
    """Check that no task failed.

    Raises:
        UnitFailedError: Some did; a line for each.
    """
    failed = [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error]
    if failed:
        raise UnitFailedError(
            f"expected results of {len(outcomes)} tasks, found {len(failed)} that failed; the "
            "others are kept, run the same command again to go on\n" + "\n".join(failed)
        )


def _outcome(task: AbsTask, model: MtebEncoder, cache: mteb.ResultCache) -> TaskOutcome:
    name = task.metadata.name
    options = {"batch_size": _DATALOADER_BATCH, "show_progress_bar": sys.stderr.isatty()}
    try:
        _require_readable(cache.get_task_result_path(name, model.mteb_model_meta))
        with warnings.catch_warnings():
            # mteb says it in its log as well, once; published tables are of these tasks.
            warnings.filterwarnings("ignore", "The task .* is superseded", UserWarning)
            results = mteb.evaluate(
                model,
                task,
                cache=cache,
                co2_tracker=False,
                # The type wants a precision too, which would be filed as an experiment of its own.
                encode_kwargs=cast("EncodeKwargs", options),
                show_progress_bar=False,
            )
    except Exception as error:
        # mteb's tasks and the loaders of their data may raise anything; the other tasks go on, and
        # the command says in the end which failed and why.
        return TaskOutcome(name, error=one_line(error))
    finally:
        if task.data_loaded:
            task.unload_data()
    # mteb merges all that was ever run into one file and gives all of it back: without this, the
    # main score would be a mean over splits and subsets that nobody asked for.
    return TaskOutcome(name, results.task_results[0].validate_and_filter_scores(task))


def _require_readable(file: Path) -> None:
    """Check a kept result: mteb writes in place, so a run that was killed may leave half a file."""
    if not file.exists():
        return
    try:
        TaskResult.from_disk(file)
    except ValueError as error:  # JSON's and pydantic's errors are ValueErrors
        raise InvalidInputError(
            f"expected a result of mteb in {file}, found {one_line(error)}; delete the file"
        ) from error
