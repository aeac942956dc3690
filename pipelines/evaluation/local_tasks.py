"""mteb's own task classes on texts that are here: STS and classification.

So the figures are those of its tasks, whichever way its evaluators go. Needs the extra `evaluate`;
import it when a task is to be run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTask
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata, TaskType

from pipelines.evaluation.mteb_encoder import MtebEncoder

if TYPE_CHECKING:
    import numpy as np
    from mteb.abstasks.classification import ClassificationMetrics
    from mteb.types import EncodeKwargs
    from numpy.typing import NDArray

__all__ = ["LabelledTextsTask", "RatedPairsTask", "scores_of"]


def _metadata(name: str, kind: TaskType, main_score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="Texts that are here.",
        dataset={"path": "local", "revision": "local"},
        type=kind,
        # Nobody asks for it; one must be given.
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )


class RatedPairsTask(AbsTaskSTS):
    """Pairs of sentences ("sentence1", "sentence2") and their ratings ("score")."""

    metadata = _metadata("RatedPairs", "STS", "cosine_spearman")


class LabelledTextsTask(AbsTaskClassification):
    """Texts ("text") and the numbers of their labels ("label"), to draw from and to judge by.

    Only what mteb is given differs from its own tasks: labels in a list. It takes a column, which
    reads a row of the file for each label that is looked at, milliseconds for each text.
    """

    metadata = _metadata("LabelledTexts", "Classification", "accuracy")

    def _calculate_scores(
        self,
        y_test: NDArray[np.integer] | list[int],
        y_pred: NDArray[np.integer | np.floating] | list[int],
    ) -> ClassificationMetrics:
        return super()._calculate_scores(y_test[:], y_pred)

    def _undersample_data(
        self, dataset: Dataset, experiment_num: int, idxs: list[int] | None = None
    ) -> tuple[Dataset, list[int], list[int]]:
        listed = cast("Dataset", _Listed(dataset))
        return super()._undersample_data(listed, experiment_num, idxs)


class _Listed:
    """A dataset whose columns are lists."""

    def __init__(self, dataset: Dataset) -> None:
        self.select = dataset.select
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, column: str) -> list[Any]:
        return cast("list[Any]", self._dataset[column][:])


def scores_of(
    task: AbsTask, splits: Mapping[str, Mapping[str, Any]], model: MtebEncoder
) -> Mapping[str, Any]:
    """Return the scores of the split "test".

    Args:
        task: Of this module.
        splits: Columns of each split: "test", and "train" where the task learns.
        model: Encodes the texts, all as documents.

    Raises:
        BackendError: The forward failed.
    """
    data = {name: Dataset.from_dict(dict(columns)) for name, columns in splits.items()}
    task.dataset, task.data_loaded = {"default": DatasetDict(data)}, True
    return task.evaluate(model, encode_kwargs=cast("EncodeKwargs", {}))["default"]
