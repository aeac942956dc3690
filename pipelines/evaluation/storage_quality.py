"""nDCG@10 against bytes per vector: what each way to store the vectors costs in quality.

The vectors that were embedded stream by, are changed to what a search would read back, and are
ranked exactly; nothing is embedded again. Queries stay float32 but in a search by Hamming distance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from encoder.errors import InvalidInputError
from pipelines.corpus.shards import ShardName
from pipelines.evaluation.beir_folder import BeirFolder
from pipelines.evaluation.dataset_corpus import DatasetCorpus
from pipelines.evaluation.pooling_pairs import Retrieval, scores_of
from pipelines.evaluation.retrieval_metrics import QueryMetrics
from pipelines.evaluation.retrieval_settings import RetrievalSettings
from pipelines.evaluation.stored_vectors import StoredAs, ValueRange, cut_to_unit, read_back
from pipelines.ranking import Place, Ranked, Ranking

__all__ = ["StorageQuality", "check_dimensions", "compare_storage"]

_K = 10
_RESCORED = 4
"""Candidates of a rescored search, times k: the default of sentence-transformers."""

_Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StorageQuality:
    """What one way to store vectors gives.

    Attributes:
        name: The way.
        dimensions: Leading dimensions that are kept.
        bytes_per_vector: Of one document, without index structures.
        ndcg: nDCG@10, the mean over the queries.
    """

    name: str
    dimensions: int
    bytes_per_vector: int
    ndcg: float


def compare_storage(
    dataset: BeirFolder, found: Retrieval, settings: RetrievalSettings
) -> list[StorageQuality]:
    """Compare the ways to store a dataset's documents, under the model's own poolings.

    Args:
        dataset: Its queries and judgements.
        found: The vectors of both.
        settings: Which dimensions; what is passed over.

    Raises:
        InvalidInputError: More dimensions are asked for than the vectors have.
        CorpusError: A shard cannot be read.
    """
    dimensions_wanted = check_dimensions(settings, found.corpus.pin.space.dimension)
    judge = QueryMetrics(dataset.qrels)

    def ndcg(results: Iterator[list[Ranked]]) -> float:
        values = [
            judge.of(
                query,
                scores_of(query, ranked, k=_K, ignore_identical_ids=settings.ignore_identical_ids),
            )["ndcg_at_10"]
            for query, ranked in zip(dataset.queries, results, strict=True)
        ]
        return sum(values) / len(values)

    return [
        StorageQuality(name, dimensions, size, ndcg(results))
        for dimensions in dimensions_wanted
        for name, size, results in _searches(found, dimensions)
    ]


def check_dimensions(settings: RetrievalSettings, all_of_them: int) -> list[int]:
    """Return the dimensions to compare, each once: given ones, or all, a half and a quarter.

    Args:
        settings: Which are wanted.
        all_of_them: Dimensions of the model's vectors.

    Raises:
        InvalidInputError: More dimensions are asked for than the vectors have.
    """
    wanted = settings.storage_dims or (all_of_them, all_of_them // 2, all_of_them // 4)
    if max(wanted) > all_of_them:
        raise InvalidInputError(
            f"--storage-dims: expected at most the {all_of_them} dimensions of the vectors, found "
            f"{max(wanted)}"
        )
    return list(dict.fromkeys(filter(None, wanted)))


def _searches(
    found: Retrieval, dimensions: int
) -> Iterator[tuple[str, int, Iterator[list[Ranked]]]]:
    """Yield (name, bytes a vector, results) of the searches over vectors of some dimensions."""
    queries = cut_to_unit(found.queries.vectors, dimensions)  # (Q, d)
    values = ValueRange.of(
        cut_to_unit(block.vectors, dimensions) for block in found.corpus.blocks()
    )
    signs = read_back(queries, StoredAs.BINARY, values)
    # One more than k, for the document that may be passed over.
    # Hamming distances are few whole numbers: which of equal ones are kept is trec_eval's order.
    rankings = {
        stored: Ranking(queries, _K + 1, cosine=False, last_ids_first=True) for stored in StoredAs
    }
    hamming = Ranking(signs, _RESCORED * (_K + 1), cosine=False, last_ids_first=True)
    for block in found.corpus.blocks():
        unit = cut_to_unit(block.vectors, dimensions)
        for stored, ranking in rankings.items():
            ranking.add(replace(block, vectors=read_back(unit, stored, values)))
        hamming.add(replace(block, vectors=read_back(unit, StoredAs.BINARY, values)))
    sizes = {stored: stored.bytes_of(dimensions) for stored in StoredAs}
    for stored in (StoredAs.FLOAT32, StoredAs.FLOAT16, StoredAs.INT8):
        yield stored.value, sizes[stored], rankings[stored].each()
    candidates = hamming.results()
    rescored = _rescored(found.corpus, queries, candidates, values)
    yield "binary, rescored by int8", sizes[StoredAs.BINARY] + sizes[StoredAs.INT8], rescored
    yield "binary, float query", sizes[StoredAs.BINARY], rankings[StoredAs.BINARY].each()
    yield "binary, Hamming", sizes[StoredAs.BINARY], (hits[: _K + 1] for hits in candidates)


def _rescored(
    corpus: DatasetCorpus,
    queries: _Vectors,
    candidates: Sequence[Sequence[Ranked]],
    values: ValueRange,
) -> Iterator[list[Ranked]]:
    """Yield each query's candidates, ranked anew by its float vector and their int8 vectors."""
    vectors = _vectors_of(corpus, chain.from_iterable(candidates), queries.shape[1], values)
    for query, hits in zip(queries, candidates, strict=True):
        scored = [replace(hit, score=float(vectors[hit.place] @ query)) for hit in hits]
        yield sorted(scored, key=lambda hit: (hit.score, str(hit.id)), reverse=True)


def _vectors_of(
    corpus: DatasetCorpus, hits: Iterator[Ranked], dimensions: int, values: ValueRange
) -> Mapping[Place, _Vectors]:
    """Read the vectors of some rows as they come back from int8."""
    wanted: dict[ShardName, set[Place]] = defaultdict(set)
    for hit in hits:
        wanted[hit.place.shard].add(hit.place)
    found: dict[Place, _Vectors] = {}
    for block in corpus.blocks():
        stop = block.row_start + len(block.ids)
        here = [p for p in wanted[block.shard] if block.row_start <= p.row < stop]
        rows = [place.row - block.row_start for place in here]
        unit = cut_to_unit(block.vectors[rows], dimensions)
        found.update(zip(here, read_back(unit, StoredAs.INT8, values), strict=True))
    return found
