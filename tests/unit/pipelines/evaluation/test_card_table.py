"""The model card's table, and what mteb 2 calls its rows."""

from __future__ import annotations

import statistics

import mteb
import pytest

from encoder.errors import InvalidInputError
from pipelines.errors import UnreadableSourceError
from pipelines.evaluation.card_table import CardRow, read_card
from pipelines.evaluation.mteb_run import find_task

ROWS = read_card().results


def row(name: str) -> CardRow:
    return next(row for row in ROWS if row.name == name)


def test_the_table_has_all_68_rows_of_the_card():
    assert len(ROWS) == 68
    assert len({row.name for row in ROWS}) == 68
    assert read_card().model == "avsolatorio/NoInstruct-small-Embedding-v0"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_a_task_of_mteb_of_its_type_split_and_subset(row):
    task = find_task(row.task_name, splits=(row.split,), subsets=row.subsets)
    assert task.metadata.type == row.task
    assert list(task.eval_splits) == [row.split]
    assert list(task.hf_subsets) == [row.config]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_has_its_tasks_main_metric(row):
    task = mteb.get_task(row.task_name)
    assert 0 < row.renamed_metrics()[task.metadata.main_score] < 100


@pytest.mark.parametrize(
    ("name", "metric", "value"),
    [
        ("MTEB SciFact", "ndcg_at_10", 72.219),
        ("MTEB STSBenchmark", "cosine_spearman", 86.979),
        ("MTEB Banking77Classification", "accuracy", 86.396),
        ("MTEB AskUbuntuDupQuestions", "map_at_1000", 62.125),
        ("MTEB AskUbuntuDupQuestions", "mrr_at_10", 74.925),
        ("MTEB MindSmallReranking", "max_over_subqueries_map_at_1000", 31.920),
        ("MTEB MindSmallReranking", "max_over_subqueries_mrr_at_10", 33.155),
        ("MTEB SprintDuplicateQuestions", "cosine_ap", 96.137),
        ("MTEB SummEval", "dot_spearman", 29.345),
    ],
)
def test_metrics_bear_mteb_2s_names(name, metric, value):
    assert row(name).renamed_metrics()[metric] == pytest.approx(value, abs=0.001)


def test_cqadupstack_is_the_mean_of_its_twelve_rows():
    parts = [
        row.metrics["ndcg_at_10"]
        for row in ROWS
        if row.name.startswith("MTEB CQADupstack") and row.name != "MTEB CQADupstackRetrieval"
    ]
    assert len(parts) == 12
    whole = row("MTEB CQADupstackRetrieval").metrics["ndcg_at_10"]
    assert statistics.mean(parts) == pytest.approx(whole, abs=0.001)


def test_the_card_is_of_vectors_that_are_not_normalised():
    # What `normalize=false` of `twofold evaluate card` rests on: of unit vectors the two are equal.
    summary = row("MTEB SummEval").metrics
    assert summary["dot_spearman"] != pytest.approx(summary["cos_sim_spearman"], abs=0.5)


def test_a_row_of_another_name_is_refused():
    with pytest.raises(InvalidInputError, match="expected a row named 'MTEB TASK'"):
        _ = ROWS[0].model_copy(update={"name": "SciFact"}).task_name


@pytest.mark.parametrize(
    "content", [None, "{", '{"model": "m"}', '{"model": "m", "results": [{}]}']
)
def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "card.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UnreadableSourceError, match="expected a card's table as JSON") as caught:
        read_card(file)
    assert "\n" not in str(caught.value)
