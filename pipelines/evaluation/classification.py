"""`twofold evaluate classification`: can a small classifier tell labels apart by the vectors?

    twofold evaluate classification --train train.csv --test test.csv --label-column category

What runs is mteb 2's own class (`AbsTaskClassification`): texts are embedded as documents; in each
of 10 experiments, 8 texts of each label are drawn from the training file, a logistic regression is
fitted on them and judged on the whole test file; the figures are means over the experiments. Which
texts are drawn follows from the seed and the order of the file. mteb 1.12 drew from one generator
that was seeded once, so its experiments (all but the first) saw other texts: compare with its
published figures within the spread that is reported.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from command_line.boundary import run_command
from command_line.fields import Location
from command_line.parse import parse_settings
from encoder.encoder import Encoder, load_encoder
from encoder.errors import InvalidInputError
from encoder.extras import require_extra
from encoder.settings import EncoderSettings
from pipelines.errors import exit_code
from pipelines.evaluation.delimited import Row, Separator, read_columns
from pipelines.evaluation.expectation import parse_expectations
from pipelines.evaluation.measurement import Measurement, ModelIdentity, ResultSettings, check, show

__all__ = [
    "METRICS",
    "ClassificationSettings",
    "LabelledTexts",
    "Protocol",
    "main",
    "measure_classification",
    "read_labelled",
]

METRICS = (
    "accuracy",
    "f1",
    "f1_weighted",
    "precision",
    "precision_weighted",
    "recall",
    "recall_weighted",
)
_BINARY_METRICS = ("ap", "ap_weighted")
"""Added where training and test texts have the same two labels; the second in alphabetical order
is the positive one."""
_SPREAD = "accuracy_std"
_EXPERIMENTS = "scores_per_experiment"
"""Of mteb's scores."""


class Protocol(BaseModel):
    """How often a classifier is fitted, and on what; the defaults are mteb's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples_per_label: int = Field(8, ge=1, description="Training texts drawn of each label")
    experiments: int = Field(10, ge=1, description="Draws; the figures are means over them")
    seed: int = Field(42, ge=0, description="Of the draws and of the classifier")


class ClassificationSettings(BaseModel):
    """What `twofold evaluate classification` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Location = Field(description="Labelled texts to draw from, or their URI")
    test: Location = Field(description="Labelled texts to judge by, or their URI")
    text_column: str = Field(
        "text", min_length=1, description="Name, or position from 1 where there is no header"
    )
    label_column: str = Field(
        "label", min_length=1, description="Name, or position from 1 where there is no header"
    )
    separator: Separator = Field(Separator.COMMA, description="What stands between columns")
    quoted: bool = Field(True, description="Double quotes enclose values and are not text")
    protocol: Protocol = Field(default_factory=Protocol)
    result: ResultSettings = Field(default_factory=ResultSettings)
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and their labels; two lists of one length."""

    texts: list[str]
    labels: list[str]


def read_labelled(uri: str, settings: ClassificationSettings) -> LabelledTexts:
    """Read one of the two files.

    Raises:
        InvalidInputError: The file is not as the settings say; names the line.
        UnreadableSourceError: The file cannot be read.
    """
    rows = read_columns(
        uri,
        (settings.text_column, settings.label_column),
        separator=settings.separator,
        quoted=settings.quoted,
    )
    for row in rows:
        _check_row(row)
    return LabelledTexts([row.values[0] for row in rows], [row.values[1] for row in rows])


def _check_row(row: Row) -> None:
    if not all(value.strip() for value in row.values):
        raise InvalidInputError(
            f"expected a text and a label, found an empty one in {row.place}; correct the line, "
            "or name other columns"
        )


def measure_classification(
    train: LabelledTexts,
    test: LabelledTexts,
    encoder: Encoder,
    protocol: Protocol,
    data: tuple[str, str],
) -> Measurement:
    """Fit and judge a logistic regression on the vectors, several times.

    Args:
        train: Texts to draw from.
        test: Texts to judge by, of labels that occur in `train`.
        encoder: Encodes all texts as documents, as the model card does.
        protocol: mteb's numbers, or others.
        data: Names of the two files, for the report.

    Raises:
        InvalidInputError: There is one label only, or a test label that no training text has.
        BackendError: The forward failed.
    """
    # Imported here: mteb is in an extra, and takes seconds.
    from sklearn.exceptions import ConvergenceWarning, UndefinedMetricWarning

    from pipelines.evaluation.local_tasks import LabelledTextsTask, scores_of
    from pipelines.evaluation.mteb_encoder import MtebEncoder

    _check_labels(train, test, data)
    # mteb takes two labels of several for 0 and 1; of those that are judged they are the first.
    judged = set(test.labels)
    names = sorted(set(train.labels), key=lambda name: (name not in judged, name))
    number = {name: index for index, name in enumerate(names)}
    task = LabelledTextsTask(seed=protocol.seed)
    task.samples_per_label, task.n_experiments = protocol.samples_per_label, protocol.experiments
    model = MtebEncoder(encoder)
    splits = {
        name: {"text": part.texts, "label": [number[label] for label in part.labels]}
        for name, part in (("train", train), ("test", test))
    }
    with warnings.catch_warnings(record=True) as caught:
        # A fit ends after 100 iterations, converged or not: the report counts those that did not.
        warnings.simplefilter("always", ConvergenceWarning)
        # A label that is never predicted has a precision of 0.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        scores = scores_of(task, splits, model)
    stopped = [one for one in caught if issubclass(one.category, ConvergenceWarning)]
    for other in (one for one in caught if one not in stopped):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    sizes = Counter(train.labels)
    counts = {
        "labels": len(names),
        "labels with too few training texts": sum(
            size < protocol.samples_per_label for size in sizes.values()
        ),
        "training texts drawn": model.texts - len(test.texts),
        "test texts": len(test.texts),
        "texts truncated": model.truncated,
        "fits stopped before converging": len(stopped),
    }
    metrics = _metrics_of(train, test)
    details = [{name: float(each[name]) for name in metrics} for each in scores[_EXPERIMENTS]]
    spread = float(np.std([each["accuracy"] for each in details]))
    means = {name: float(scores[name]) for name in metrics}
    return Measurement("classification", data, counts, {**means, _SPREAD: spread}, details)


def _metrics_of(train: LabelledTexts, test: LabelledTexts) -> tuple[str, ...]:
    is_binary = len(set(train.labels)) == len(set(test.labels)) == 2
    return (*METRICS, *_BINARY_METRICS) if is_binary else METRICS


def _check_labels(train: LabelledTexts, test: LabelledTexts, data: tuple[str, str]) -> None:
    known = set(train.labels)
    if len(known) < 2:
        raise InvalidInputError(
            f"expected two labels or more in {data[0]}, found one, {train.labels[0]!r}; "
            "there is nothing to tell apart"
        )
    unknown = sorted(set(test.labels) - known)
    if unknown:
        raise InvalidInputError(
            f"expected only labels of {data[0]} in {data[1]}, found {len(unknown)} others, such "
            f"as {unknown[0]!r}; no classifier can find them"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        ClassificationSettings,
        argv,
        prog="twofold evaluate classification",
        description="Fit a logistic regression on the vectors of a few texts of each label and "
        "judge it on others, as mteb does.",
    )
    require_extra("evaluate", "mteb")
    train, test = (read_labelled(uri, settings) for uri in (settings.train, settings.test))
    parse_expectations(settings.result.expect, _metrics_of(train, test))
    encoder = load_encoder(settings.encoder)
    measurement = measure_classification(
        train, test, encoder, settings.protocol, (settings.train, settings.test)
    )
    console = Console(highlight=False, markup=False)
    show(measurement, ModelIdentity.of(encoder), settings.result, console)
    check(measurement, settings.result)
    return 0
