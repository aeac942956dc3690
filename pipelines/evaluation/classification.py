"""`twofold evaluate classification`: can a small classifier tell labels apart by the vectors?

    twofold evaluate classification --train train.csv --test test.csv --label-column category

The protocol is that of mteb 2 (`AbsTaskClassification`): texts are embedded as documents; in each
of 10 experiments, 8 texts of each label are drawn from the training file, a logistic regression is
fitted on them and judged on the whole test file; the figures are means over the experiments. Which
texts are drawn follows from the seed and the order of the file, exactly as in mteb 2.26. mteb 1.12
drew from one generator that was seeded once, so its experiments (all but the first) saw other
texts: compare with its published figures within the spread that is reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
from encoder.space import Role
from pipelines.errors import exit_code
from pipelines.evaluation.delimited import Row, Separator, read_columns
from pipelines.evaluation.expectation import parse_expectations
from pipelines.evaluation.linear_probe import (
    BINARY_METRICS,
    METRICS,
    Protocol,
    draws_of,
    experiment,
)
from pipelines.evaluation.measurement import Measurement, ModelIdentity, ResultSettings, check, show

__all__ = [
    "ClassificationSettings",
    "LabelledTexts",
    "main",
    "measure_classification",
    "read_labelled",
]

_SPREAD = "accuracy_std"


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
    names = sorted(set(train.labels))
    _check_labels(names, test, data)
    number = {name: index for index, name in enumerate(names)}
    train_labels = np.array([number[label] for label in train.labels])  # (N,)
    test_labels = np.array([number[label] for label in test.labels])  # (T,)
    draws = list(draws_of(train_labels.tolist(), protocol))
    drawn = sorted(set().union(*draws))
    encoded = encoder.encode([train.texts[index] for index in drawn], Role.DOCUMENT)
    row_of = {index: row for row, index in enumerate(drawn)}
    judged = encoder.encode(test.texts, Role.DOCUMENT)
    experiments = [
        experiment(
            encoded.vectors[[row_of[index] for index in draw]],
            train_labels[draw],
            judged.vectors,
            test_labels,
            protocol,
        )
        for draw in draws
    ]
    sizes = Counter(train.labels)
    counts = {
        "labels": len(names),
        "labels with too few training texts": sum(
            size < protocol.samples_per_label for size in sizes.values()
        ),
        "training texts drawn": len(drawn),
        "test texts": len(test.texts),
        "texts truncated": int(encoded.truncated.sum() + judged.truncated.sum()),
        "fits stopped before converging": sum(not converged for _, converged in experiments),
    }
    details = [scores for scores, _ in experiments]
    return Measurement("classification", data, counts, _means(details), details)


def _check_labels(names: Sequence[str], test: LabelledTexts, data: tuple[str, str]) -> None:
    if len(names) < 2:
        raise InvalidInputError(
            f"expected two labels or more in {data[0]}, found one, {names[0]!r}; "
            "there is nothing to tell apart"
        )
    unknown = sorted(set(test.labels).difference(names))
    if unknown:
        raise InvalidInputError(
            f"expected only labels of {data[0]} in {data[1]}, found {len(unknown)} others, such "
            f"as {unknown[0]!r}; no classifier can find them"
        )


def _means(experiments: Sequence[Mapping[str, float]]) -> dict[str, float]:
    means = {
        name: float(np.mean([scores[name] for scores in experiments])) for name in experiments[0]
    }
    return {**means, _SPREAD: float(np.std([scores["accuracy"] for scores in experiments]))}


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
    require_extra("evaluate", "sklearn")
    train, test = (read_labelled(uri, settings) for uri in (settings.train, settings.test))
    is_binary = len(set(train.labels)) == len(set(test.labels)) == 2
    known = (*METRICS, *BINARY_METRICS) if is_binary else METRICS
    parse_expectations(settings.result.expect, known)
    encoder = load_encoder(settings.encoder)
    measurement = measure_classification(
        train, test, encoder, settings.protocol, (settings.train, settings.test)
    )
    console = Console(highlight=False, markup=False)
    show(measurement, ModelIdentity.of(encoder), settings.result, console)
    check(measurement, settings.result)
    return 0
