"""Published figures are found by the dataset's name and brought to fractions of 1."""

from __future__ import annotations

import json

import pytest

from encoder.errors import InvalidInputError
from pipelines.evaluation.expectation import Expectation
from pipelines.evaluation.published_figures import read_expectations

KNOWN = ("ndcg_at_1", "ndcg_at_10", "precision_at_1000")
CARD = {
    "model": "some/model",
    "results": [
        {"name": "MTEB SciFact", "dataset": "mteb/scifact", "split": "test",
         "metrics": {"ndcg_at_10": 72.2, "precision_at_1000": 0.1, "max_f1": 5}},
        {"name": "MTEB FiQA2018", "dataset": "mteb/fiqa", "split": "test",
         "metrics": {"ndcg_at_10": 40.0}},
        {"name": "MTEB Odd", "dataset": "mteb/odd", "split": "dev", "metrics": {"accuracy": 1}},
    ],
}  # fmt: skip


def expected(tmp_path, content, dataset="scifact", split="test"):
    file = tmp_path / "table.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_expectations([str(file)], KNOWN, dataset=dataset, split=split)


def test_a_metric_and_a_file_may_both_be_given(tmp_path):
    file = tmp_path / "table.json"
    file.write_text('{"ndcg_at_10": 1.0, "precision_at_1000": 0.6, "other": 3}')
    found = read_expectations(["ndcg_at_1=0.5", str(file)], KNOWN, dataset="d", split="test")
    assert found == (
        Expectation("ndcg_at_1", 0.5),
        Expectation("ndcg_at_10", 1.0),
        Expectation("precision_at_1000", 0.6),
    )


def test_a_cards_row_is_found_by_the_folders_name_and_is_in_per_cent(tmp_path):
    for name in ("scifact", "SciFact"):
        assert expected(tmp_path, CARD, name) == (
            Expectation("ndcg_at_10", pytest.approx(0.722)),
            Expectation("precision_at_1000", pytest.approx(0.001)),
        )


def test_a_cards_row_is_found_by_its_title_too(tmp_path):
    assert expected(tmp_path, CARD, "FiQA2018") == expected(tmp_path, CARD, "fiqa")


@pytest.mark.parametrize(
    ("content", "dataset", "split", "says"),
    [
        (CARD, "nfcorpus", "test", "found 0 of 3"),
        (CARD, "scifact", "dev", "found 0 of 3"),
        (CARD, "odd", "dev", "found accuracy"),
        ({"results": 5}, "scifact", "test", "found 0 of 0"),
        ({"ndcg_at_10": "high"}, "scifact", "test", "expected numbers"),
        ({}, "scifact", "test", "found nothing"),
        ([1], "scifact", "test", "expected a JSON object"),
        ("{", "scifact", "test", "is not JSON"),
    ],
)
def test_a_file_that_says_nothing_of_the_dataset_is_refused(
    tmp_path, content, dataset, split, says
):
    with pytest.raises(InvalidInputError, match="--expect") as caught:
        expected(tmp_path, content, dataset, split)
    assert says in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="No such file"):
        read_expectations([str(tmp_path / "none.json")], KNOWN, dataset="d", split="test")
