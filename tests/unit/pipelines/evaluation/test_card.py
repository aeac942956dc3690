"""Rows to run, and ours beside the card's."""

from __future__ import annotations

import pytest
from mteb.results import TaskResult

from encoder.errors import InvalidInputError
from pipelines.evaluation import card
from pipelines.evaluation.card import compare, select_rows
from pipelines.evaluation.card_table import CardTable, read_card
from pipelines.evaluation.mteb_run import TaskOutcome, find_task

TABLE = read_card()


def names(rows) -> list[str]:
    return [row.task_name for row in rows]


def outcome(name: str, **scores: float) -> TaskOutcome:
    task = find_task(name)
    result = TaskResult.from_task_results(
        task,
        {"test": {"default": {**scores, "main_score": scores[task.metadata.main_score]}}},
        evaluation_time=1.0,
    )
    return TaskOutcome(name, result)


def compared(name: str, found: TaskOutcome):
    (row,) = select_rows(TABLE, tasks=[name])
    return compare(row, find_task(name), found)


def test_all_rows_are_selected_where_none_is_named():
    assert select_rows(TABLE) == list(TABLE.results)


def test_rows_are_selected_by_task_and_by_type():
    assert names(select_rows(TABLE, tasks=["SciFact", "ArguAna"])) == ["ArguAna", "SciFact"]
    assert len(select_rows(TABLE, types=["STS"])) == 10
    assert names(select_rows(TABLE, tasks=["SciFact", "STS12"], types=["STS"])) == ["STS12"]


@pytest.mark.parametrize(("kind", "option"), [("tasks", "--tasks"), ("types", "--types")])
def test_an_unknown_task_or_type_is_refused_with_those_that_there_are(kind, option):
    with pytest.raises(InvalidInputError, match=f"{option}: expected some of .*, found Nothing"):
        select_rows(TABLE, **{kind: ["Nothing"]})


def test_ours_is_put_beside_the_cards_in_percent():
    found = compared("STSBenchmark", outcome("STSBenchmark", cosine_spearman=0.87, spearman=0.1))
    assert found.metric == "cosine_spearman"
    assert found.ours == {"cosine_spearman": pytest.approx(87)}
    assert found.difference == pytest.approx(87 - 86.979, abs=0.001)


def test_a_failed_task_has_no_difference():
    found = compared("STSBenchmark", TaskOutcome("STSBenchmark", error="no data"))
    assert found.ours == {}
    assert found.difference is None


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("STSBenchmark", True),
        ("SciFact", False),  # it was uploaded again since
        ("CQADupstackRetrieval", True),  # has no data of its own
    ],
)
def test_data_of_another_revision_than_the_cards_is_marked(name, same):
    assert compared(name, TaskOutcome(name, error="not run")).same_data is same


def test_a_card_without_the_main_metric_is_refused():
    (row,) = select_rows(TABLE, tasks=["SciFact"])
    other = row.model_copy(update={"metrics": {"map_at_1": 1.0}})
    with pytest.raises(InvalidInputError, match="expected ndcg_at_10 among the metrics"):
        compare(other, find_task("SciFact"), TaskOutcome("SciFact"))


def test_a_card_without_a_main_metric_is_refused_before_anything_is_loaded(
    tmp_path, monkeypatch, capsys
):
    def load(_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(card, "load_encoder", load)
    bad, good = select_rows(TABLE, tasks=["SciFact", "STS12"])
    assert bad.task_name == "STS12"
    bad = bad.model_copy(update={"metrics": {"euclidean_spearman": 50.0}})
    file = tmp_path / "card.json"
    file.write_text(CardTable(model="m", results=(good, bad)).model_dump_json())
    assert card.main(["--card", str(file), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "expected cosine_spearman among the metrics of MTEB STS12, found euclidean" in error
