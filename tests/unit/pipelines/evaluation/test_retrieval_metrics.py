"""The metrics agree with mteb's own on the same rankings, ties included."""

from __future__ import annotations

import random

import pytest

from pipelines.evaluation.retrieval_metrics import CUTS, METRICS, QueryMetrics, mean_metrics

pytest.importorskip("pytrec_eval", reason="the extra evaluate is not installed")


def test_a_ranking_whose_second_document_is_the_only_relevant_one():
    metrics = QueryMetrics({"q": {"a": 1}}).of("q", {"b": 0.9, "a": 0.8})
    assert metrics["mrr_at_1"] == 0
    assert metrics["mrr_at_3"] == 0.5
    assert metrics["recall_at_3"] == 1
    assert metrics["precision_at_10"] == pytest.approx(0.1)
    assert metrics["ndcg_at_10"] == pytest.approx(0.63093, abs=1e-5)
    assert tuple(metrics) == METRICS


def test_a_query_that_finds_nothing_counts_as_zero():
    judge = QueryMetrics({"q": {"a": 1}, "r": {"a": 1}})
    mean = mean_metrics([judge.of("q", {}), judge.of("r", {"a": 1.0})])
    assert set(mean.values()) <= {0.5, *(0.5 / k for k in CUTS)}


def test_a_judgement_of_zero_is_not_relevant():
    assert QueryMetrics({"q": {"a": 0, "b": 1}}).of("q", {"a": 1.0})["mrr_at_10"] == 0


def test_the_means_are_mtebs():
    metrics = pytest.importorskip(
        "mteb._evaluators.retrieval_metrics", reason="the extra evaluate is not installed"
    )
    choice = random.Random(7)
    documents = [f"d{number}" for number in range(60)]
    qrels = {
        f"q{number}": {name: choice.choice([0, 1, 2]) for name in choice.sample(documents, 8)}
        for number in range(25)
    }
    # Few different scores, so that ties decide.
    results = {
        query: {name: choice.choice([0.1, 0.2, 0.3, 0.4]) for name in documents} for query in qrels
    }
    theirs = metrics.calculate_retrieval_scores(results, qrels, list(CUTS))
    judge = QueryMetrics(qrels)
    ours = mean_metrics([judge.of(query, scores) for query, scores in results.items()])
    for name, values in (
        ("NDCG", theirs.ndcg),
        ("MAP", theirs.map),
        ("MRR", theirs.mrr),
        ("Recall", theirs.recall),
        ("P", theirs.precision),
    ):
        named = {"Recall": "recall", "P": "precision"}.get(name, name.lower())
        for cut in CUTS:
            expected = values[f"{name}@{cut}"]
            assert ours[f"{named}_at_{cut}"] == pytest.approx(expected, abs=1e-5)
