"""nDCG, MAP, MRR, recall and precision of rankings, as BEIR, mteb and the model card name them.

All but MRR come from trec_eval itself (pytrec_eval). Like trec_eval, equal scores are ranked by
document id, the last one first. MRR@k is mteb's: trec_eval has no cut for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytrec_eval import RelevanceEvaluator

__all__ = ["CUTS", "METRICS", "TOP_K", "QueryMetrics", "mean_metrics"]

CUTS = (1, 3, 5, 10, 100, 1000)
TOP_K = max(CUTS)
"""Documents that are ranked for each query."""
_MEASURES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}
METRICS = tuple(
    f"{name}_at_{k}" for name in ("ndcg", "map", "mrr", "recall", "precision") for k in CUTS
)
"""Names of the metrics, fractions of 1, in the order in which they are shown."""


class QueryMetrics:
    """Judges rankings query by query, so that they need not be in memory all at once."""

    def __init__(self, qrels: Mapping[str, Mapping[str, int]]) -> None:
        """Take the judgements.

        Args:
            qrels: {query: {document: score}}; a score above 0 means relevant.
        """
        from pytrec_eval import RelevanceEvaluator

        cuts = ",".join(map(str, CUTS))
        self._relevant = {
            query: {document for document, score in judged.items() if score > 0}
            for query, judged in qrels.items()
        }
        self._evaluator: RelevanceEvaluator = RelevanceEvaluator(
            {query: dict(judged) for query, judged in qrels.items()},
            {f"{measure}.{cuts}" for measure in _MEASURES.values()},
        )

    def of(self, query: str, scores: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics of one query's ranking, by the names in `METRICS`.

        Args:
            query: A judged query.
            scores: Its best documents, up to `TOP_K`, with their scores; more is better.
        """
        found = self._evaluator.evaluate({query: dict(scores)})[query]
        named = {
            f"{name}_at_{k}": found[f"{measure}_{k}"]
            for name, measure in _MEASURES.items()
            for k in CUTS
        }
        rank = self._first_relevant(query, scores)
        named |= {f"mrr_at_{k}": 1 / rank if rank and rank <= k else 0.0 for k in CUTS}
        return {metric: named[metric] for metric in METRICS}

    def _first_relevant(self, query: str, scores: Mapping[str, float]) -> int | None:
        """Return the rank, from 1, of the first relevant document."""
        ordered = sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)
        relevant = self._relevant[query]
        return next((rank for rank, (name, _) in enumerate(ordered, 1) if name in relevant), None)


def mean_metrics(of_queries: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the means over queries, each query alike.

    Args:
        of_queries: What `QueryMetrics.of` gave, at least once.
    """
    rows = list(of_queries)
    return {metric: sum(row[metric] for row in rows) / len(rows) for metric in METRICS}
