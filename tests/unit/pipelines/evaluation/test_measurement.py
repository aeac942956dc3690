"""Where figures go: into files of this machine, which any JSON reader reads."""

from __future__ import annotations

import json

import pytest

from pipelines.evaluation import card, mteb_tasks, retrieval, sts
from pipelines.evaluation.measurement import write_json


@pytest.mark.parametrize(
    ("command", "arguments", "flag"),
    [
        (sts, ["--pairs", "x"], "--json"),
        (retrieval, ["--dataset", "x"], "--per-query"),
        (retrieval, ["--dataset", "x", "--storage"], "--plot"),
        (mteb_tasks, ["--tasks", "STS12"], "--output"),
        (card, [], "--output"),
    ],
)
def test_results_are_not_sent_to_a_store_and_a_uri_is_refused_at_once(
    capsys, command, arguments, flag
):
    assert command.main([*arguments, flag, "s3://lake/results"]) == 2
    error = capsys.readouterr().err
    assert f"{flag}: expected a path on this machine, found s3://lake/results; write" in error
    assert error.count("\n") == 1


def test_a_figure_that_is_no_number_is_null(tmp_path):
    file = tmp_path / "folder" / "figures.json"
    write_json(str(file), {"metrics": {"pearson": float("nan"), "spearman": 0.5}, "data": ("a",)})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    assert content == {"metrics": {"pearson": None, "spearman": 0.5}, "data": ["a"]}
