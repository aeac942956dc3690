"""Retrieval under pairs of poolings: the model's own, or all four for an ablation.

The vectors of the documents are made once for each document pooling and those of the queries once
for each query pooling; pairs are ranked from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from encoder.encoder import load_encoder
from encoder.model.description import describe_model
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace, Pooling, Role
from pipelines.corpus.probe_vectors import check_probe_vectors
from pipelines.evaluation.beir_folder import BeirFolder
from pipelines.evaluation.dataset_corpus import DatasetCorpus, embed_dataset
from pipelines.evaluation.measurement import ModelIdentity
from pipelines.evaluation.retrieval_metrics import TOP_K, QueryMetrics
from pipelines.evaluation.retrieval_settings import RetrievalSettings
from pipelines.ranking import Ranked, Ranking

__all__ = ["DatasetQueries", "PoolingPair", "Retrieval", "encode_queries", "retrieve", "scores_of"]


class PoolingPair(NamedTuple):
    """How queries and documents are pooled."""

    query: Pooling
    document: Pooling

    @staticmethod
    def of(space: EmbeddingSpace) -> PoolingPair:
        """Return the pair of a space."""
        return PoolingPair(space.query.pooling, space.document.pooling)


@dataclass(frozen=True)
class DatasetQueries:
    """The vectors of a dataset's judged queries.

    Attributes:
        vectors: float32 (Q, D), in the order of `BeirFolder.queries`.
        truncated: Queries that were longer than the model reads.
        model: What encoded them.
    """

    vectors: npt.NDArray[np.float32]
    truncated: int
    model: ModelIdentity


@dataclass(frozen=True)
class Retrieval:
    """What was found.

    Attributes:
        own: The model's own pair.
        metrics: For each pair, each query's metrics.
        queries: The queries' vectors under the model's own pooling.
        corpus: The documents' vectors under the model's own pooling.
    """

    own: PoolingPair
    metrics: Mapping[PoolingPair, Mapping[str, Mapping[str, float]]]
    queries: DatasetQueries
    corpus: DatasetCorpus


def retrieve(dataset: BeirFolder, settings: RetrievalSettings) -> Retrieval:
    """Embed a dataset and judge what its queries find.

    Raises:
        TwofoldError: See `embed_corpus` and `encode_queries`.
    """
    own = PoolingPair.of(describe_model(settings.encoder).space)
    query_poolings = list(Pooling) if settings.ablation else [own.query]
    document_poolings = list(Pooling) if settings.ablation else [own.document]
    output = f"{settings.output.rstrip('/')}/{dataset.name}"
    corpora = {
        pooling: embed_dataset(
            dataset,
            output,
            _pooled(settings.encoder, PoolingPair(own.query, pooling)),
            settings.job,
        )
        for pooling in document_poolings
    }
    # Also once for each document pooling: kept vectors are held against an encoder of their space.
    # The model's own pair comes after those, and is what is reported.
    spaces = [PoolingPair(own.query, other) for other in document_poolings if other != own.document]
    spaces += [PoolingPair(pooling, own.document) for pooling in query_poolings]
    queries = {
        pair.query: encode_queries(
            dataset,
            _pooled(settings.encoder, pair),
            corpora[pair.document] if pair.query is own.query else None,
        )
        for pair in spaces
    }
    metrics: dict[PoolingPair, dict[str, dict[str, float]]] = {}
    for document in document_poolings:
        found = _judge(
            dataset,
            corpora[document],
            [queries[query] for query in query_poolings],
            ignore_identical_ids=settings.ignore_identical_ids,
        )
        pairs = (PoolingPair(query, document) for query in query_poolings)
        metrics.update(zip(pairs, found, strict=True))
    return Retrieval(own, metrics, queries[own.query], corpora[own.document])


def encode_queries(
    dataset: BeirFolder, settings: EncoderSettings, corpus: DatasetCorpus | None
) -> DatasetQueries:
    """Encode the judged queries as queries.

    Args:
        dataset: Where they are from.
        settings: The model and how to run it.
        corpus: Documents of the same space, which the encoder must compute alike: they may be of
            an earlier run, of another version; None where there are none.

    Raises:
        SpaceMismatchError: The encoder computes other vectors than those that were kept.
        ModelLoadError: The model cannot be loaded.
        BackendError: The forward failed.
    """
    encoder = load_encoder(settings)
    try:
        if corpus is not None:
            check_probe_vectors(corpus.storage, encoder)
        encoded = encoder.encode(list(dataset.queries.values()), Role.QUERY)
        return DatasetQueries(
            encoded.vectors, int(encoded.truncated.sum()), ModelIdentity.of(encoder)
        )
    finally:
        encoder.close()


def scores_of(
    query: str, ranked: Sequence[Ranked], *, k: int, ignore_identical_ids: bool
) -> dict[str, float]:
    """Return the first k documents of a ranking with their scores.

    Args:
        query: The query's id.
        ranked: Its documents, best first.
        k: How many count.
        ignore_identical_ids: Pass over the document with the query's own id.
    """
    found = ((str(hit.id), hit.score) for hit in ranked)
    others = ((name, score) for name, score in found if not ignore_identical_ids or name != query)
    return dict(islice(others, k))


def _pooled(settings: EncoderSettings, pair: PoolingPair) -> EncoderSettings:
    return settings.model_copy(
        update={"query_pooling": pair.query, "document_pooling": pair.document}
    )


def _judge(
    dataset: BeirFolder,
    corpus: DatasetCorpus,
    queries: Sequence[DatasetQueries],
    *,
    ignore_identical_ids: bool,
) -> list[dict[str, dict[str, float]]]:
    """Return the metrics of each query for each set of vectors; the corpus streams by once."""
    cosine = not corpus.pin.space.normalize
    # One more, for the document that may be passed over. Ties at the cut are trec_eval's, too.
    rankings = [
        Ranking(each.vectors, TOP_K + 1, cosine=cosine, last_ids_first=True) for each in queries
    ]
    for block in corpus.blocks():
        for ranking in rankings:
            ranking.add(block)
    judge = QueryMetrics(dataset.qrels)
    return [
        {
            query: judge.of(
                query,
                scores_of(query, ranked, k=TOP_K, ignore_identical_ids=ignore_identical_ids),
            )
            for query, ranked in zip(dataset.queries, ranking.each(), strict=True)
        }
        for ranking in rankings
    ]
