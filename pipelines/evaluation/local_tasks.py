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
    from mteb.types import EncodeKwargs

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
    """Texts ("text") and the numbers of their labels ("label"), to draw from and to judge by."""

    metadata = _metadata("LabelledTexts", "Classification", "accuracy")


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
