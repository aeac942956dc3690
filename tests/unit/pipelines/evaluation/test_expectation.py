"""What a figure is expected to be."""

from __future__ import annotations

import pytest

from encoder.errors import InvalidInputError
from pipelines.errors import VerificationError, exit_code
from pipelines.evaluation.expectation import (
    Expectation,
    check_expectations,
    parse_expectations,
)


def test_an_expectation_is_a_metric_and_a_number():
    assert parse_expectations(["f1=0.5"], ["accuracy", "f1"]) == (Expectation("f1", 0.5),)


@pytest.mark.parametrize("text", ["f1", "f1=", "f1=high", "f1=nan", "recall=0.5", "=0.5"])
def test_anything_else_is_refused_with_the_metrics_that_there_are(text):
    with pytest.raises(InvalidInputError, match=r"--expect: .*one of accuracy, f1, found"):
        parse_expectations([text], ["accuracy", "f1"])


@pytest.mark.parametrize("found", [0.799, 0.801])
def test_a_figure_within_the_tolerance_passes(found):
    check_expectations([Expectation("f1", 0.8)], {"f1": found}, 0.0011)


@pytest.mark.parametrize("found", [0.798, 0.802, float("nan")])
def test_a_figure_that_is_off_ends_with_the_exit_code_of_a_failed_check(found):
    with pytest.raises(VerificationError, match=r"expected f1 0.8 within 0.001, found") as caught:
        check_expectations([Expectation("f1", 0.8)], {"f1": found}, 0.001)
    assert exit_code(caught.value) == 8


def test_all_figures_that_are_off_are_named():
    with pytest.raises(VerificationError, match=r"f1 .*; expected ap"):
        check_expectations([Expectation("f1", 1), Expectation("ap", 1)], {"f1": 0, "ap": 0}, 0.1)
