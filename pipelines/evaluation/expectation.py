"""What a figure is expected to be, and the error when it is not."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from encoder.errors import InvalidInputError
from pipelines.errors import VerificationError

__all__ = ["Expectation", "check_expectations", "parse_expectations"]


class Expectation(NamedTuple):
    """A metric and the value that was published for it."""

    metric: str
    value: float


def parse_expectations(texts: Sequence[str], known: Collection[str]) -> tuple[Expectation, ...]:
    """Read "metric=value" texts.

    Args:
        texts: As given to `--expect`.
        known: Metrics that will be measured.

    Raises:
        InvalidInputError: A text is of another form, or its metric is not measured.
    """
    return tuple(_parse(text, known) for text in texts)


def _parse(text: str, known: Collection[str]) -> Expectation:
    metric, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if metric not in known or not math.isfinite(number):
        raise InvalidInputError(
            f"--expect: expected METRIC=NUMBER with one of {', '.join(known)}, found {text!r}"
        )
    return Expectation(metric, number)


def check_expectations(
    expectations: Sequence[Expectation], found: Mapping[str, float], tolerance: float
) -> None:
    """Compare what was measured with what was expected.

    Args:
        expectations: Their metrics are in `found`.
        found: What was measured, by metric.
        tolerance: Largest difference that is none.

    Raises:
        VerificationError: Some differ by more; names all of them.
    """
    wrong = [
        f"expected {metric} {value:g} within {tolerance:g}, found {found[metric]:.5f}"
        for metric, value in expectations
        # Not `>`: what could not be measured (NaN) is off, too.
        if not abs(found[metric] - value) <= tolerance
    ]
    if wrong:
        raise VerificationError("; ".join(wrong))
