"""A logistic regression on a few vectors of each label: mteb 2's classification protocol.

Which texts are drawn follows from the seed and their order, exactly as in mteb 2.26. mteb 1.12 drew
from one generator that was seeded once, so its experiments saw other texts, of the same number.
Knows nothing of files and models.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BINARY_METRICS", "METRICS", "Protocol", "draws_of", "experiment"]

METRICS = (
    "accuracy",
    "f1",
    "f1_weighted",
    "precision",
    "precision_weighted",
    "recall",
    "recall_weighted",
)
BINARY_METRICS = ("ap", "ap_weighted")
"""Added where training and test texts have the same two labels; the second in alphabetical order
is the positive one."""


class Protocol(BaseModel):
    """How the classifier is fitted and judged; the defaults are mteb's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples_per_label: int = Field(8, ge=1, description="Training texts drawn of each label")
    experiments: int = Field(10, ge=1, description="Draws; the figures are means over them")
    seed: int = Field(42, ge=0, description="Of the draws and of the classifier")
    max_iterations: int = Field(100, ge=1, description="Of the logistic regression, at most")


def draws_of(labels: Sequence[int], protocol: Protocol) -> Iterator[list[int]]:
    """Yield the training texts of each experiment: mteb 2's `_undersample_data`.

    Every experiment seeds a generator anew, and shuffles the order that the one before has left.

    Args:
        labels: Of the training texts, in the order of the file.
        protocol: How many of each label, how often, from which seed.

    Returns:
        For each experiment positions in `labels`.
    """
    order = list(range(len(labels)))
    for _ in range(protocol.experiments):
        np.random.RandomState(protocol.seed).shuffle(order)
        taken: Counter[int] = Counter()
        draw = []
        for index in order:
            if taken[labels[index]] < protocol.samples_per_label:
                taken[labels[index]] += 1
                draw.append(index)
        yield draw


def experiment(
    vectors: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    test_vectors: npt.NDArray[np.float32],
    test_labels: npt.NDArray[np.int64],
    protocol: Protocol,
) -> tuple[dict[str, float], bool]:
    """Fit a logistic regression and judge it.

    Args:
        vectors: Of the texts that were drawn, (S, D).
        labels: Theirs, (S,).
        test_vectors: Of the texts to judge by, (T, D).
        test_labels: Theirs, (T,).
        protocol: The seed and the iterations of the fit.

    Returns:
        The scores by metric, and whether the fit converged.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(random_state=protocol.seed, max_iter=protocol.max_iterations)
    with warnings.catch_warnings():
        # mteb stops after 100 iterations, converged or not; the report counts those that did not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(vectors, labels)
    converged = bool((classifier.n_iter_ < protocol.max_iterations).all())
    is_binary = len(np.unique(labels)) == len(np.unique(test_labels)) == 2
    return _scores(test_labels, classifier.predict(test_vectors), is_binary=is_binary), converged


def _scores(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], *, is_binary: bool
) -> dict[str, float]:
    from sklearn.metrics import (
        accuracy_score,
        average_precision_score,
        f1_score,
        precision_score,
        recall_score,
    )

    scores = {"accuracy": accuracy_score(labels, predicted)}
    for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        # A label that is never predicted has a precision of 0, as scikit-learn warns by default.
        scores[name] = score(labels, predicted, average="macro", zero_division=0)
        scores[f"{name}_weighted"] = score(labels, predicted, average="weighted", zero_division=0)
    if is_binary:
        scores["ap"] = average_precision_score(labels, predicted, average="macro")
        scores["ap_weighted"] = average_precision_score(labels, predicted, average="weighted")
    return {name: float(score) for name, score in scores.items()}
