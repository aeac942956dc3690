"""What a measurement gives: figures, what they are figures of, as a table and as JSON.

Knows nothing of how a figure is made.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from rich.console import Console
from rich.table import Table

from command_line.fields import OneOrMore
from encoder.encoder import Encoder
from pipelines.evaluation.expectation import check_expectations, parse_expectations
from pipelines.evaluation.result_file import result_file

__all__ = [
    "ON_THIS_MACHINE",
    "JsonSettings",
    "Measurement",
    "ModelIdentity",
    "ResultSettings",
    "check",
    "ran_as",
    "show",
    "write_json",
]


def _on_this_machine(value: object) -> object:
    if "://" in str(value):
        raise ValueError(
            f"expected a path on this machine, found {value}; write there, and copy it to the store"
        )
    return value


ON_THIS_MACHINE = BeforeValidator(_on_this_machine)
"""Stands beside a field that names what is written here: a URI would be a folder called "s3:"."""

with warnings.catch_warnings():
    # The flag is `--json`, as of other tools; what pydantic has under this name is deprecated.
    warnings.filterwarnings("ignore", 'Field name "json" in "JsonSettings"', UserWarning)

    class JsonSettings(BaseModel):
        """Where figures go beside the terminal. Field descriptions are the command's help."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        json: Annotated[str | None, ON_THIS_MACHINE] = Field(  # type: ignore[assignment]
            None, description="Write the figures to this file, too"
        )


class ResultSettings(JsonSettings):
    """What becomes of the figures. Field descriptions are the command's help."""

    expect: OneOrMore = Field(
        (),
        description="METRIC=VALUE, for retrieval also a JSON file of published figures: exit with "
        "8 where a figure is another; repeatable",
    )
    tolerance: float = Field(
        0.001, ge=0, description="Largest difference from --expect that is none"
    )


@dataclass(frozen=True)
class ModelIdentity:
    """Which model was measured, and how it ran.

    Attributes:
        space: Fingerprint of its embedding space.
        provenance: Model, revision, backend, dtype, device and versions.
    """

    space: str
    provenance: dict[str, str]

    @staticmethod
    def of(encoder: Encoder) -> ModelIdentity:
        """Return the identity of a loaded model."""
        return ModelIdentity(encoder.space.fingerprint, dict(encoder.provenance))

    def __str__(self) -> str:
        """Return what matters on a line: model, backend, precision, space."""
        names = ("model", "backend", "dtype")
        ran = [self.provenance[name] for name in names if name in self.provenance]
        return ", ".join([*ran, f"space {self.space}"])


def ran_as(provenance: Mapping[str, str]) -> str:
    """Return what decides the last digits of a vector: backend and precision ("torch float32")."""
    return " ".join(provenance[name] for name in ("backend", "dtype") if name in provenance)


@dataclass(frozen=True)
class Measurement:
    """Figures of one model on one data set.

    Attributes:
        task: What was measured ("sts").
        data: The files.
        counts: How much there was: texts, how many were truncated, ...
        metrics: Fractions of 1, by the names that mteb 2 gives them.
        details: What the metrics are averages of, if they are; one mapping each.
    """

    task: str
    data: tuple[str, ...]
    counts: Mapping[str, int]
    metrics: Mapping[str, float]
    details: Sequence[Mapping[str, float]] = ()


def show(
    measurement: Measurement, model: ModelIdentity, settings: ResultSettings, console: Console
) -> None:
    """Print the figures, and write them where `--json` says.

    Raises:
        StorageError: The JSON file cannot be written.
    """
    console.print(f"{measurement.task}: {model}", soft_wrap=True)
    console.print(_table(measurement))
    if settings.json is not None:
        write_json(settings.json, {**asdict(measurement), "model": asdict(model)})


def check(measurement: Measurement, settings: ResultSettings) -> None:
    """Compare the figures with what `--expect` says.

    Raises:
        VerificationError: One is not what was expected.
    """
    expectations = parse_expectations(settings.expect, measurement.metrics)
    check_expectations(expectations, measurement.metrics, settings.tolerance)


def write_json(path: str, content: object) -> None:
    """Write a JSON file for people and programs; folders are made.

    A figure that is no number (the correlation with equal ratings) is null: JSON has no NaN.

    Raises:
        StorageError: It cannot be written.
    """
    plain = json.loads(json.dumps(content), parse_constant=lambda _: None)
    with result_file(path, "--json") as file:
        file.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def _table(measurement: Measurement) -> Table:
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in measurement.metrics.items():
        table.add_row(name, f"{value:.5f}")
    table.add_section()
    for name, count in measurement.counts.items():
        table.add_row(name, f"{count:,}")
    return table
