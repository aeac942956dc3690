"""Storage choices over given vectors: what is lossless loses nothing, and order is exact."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.errors import InvalidInputError
from pipelines.corpus.pin import Pin
from pipelines.evaluation import storage_quality
from pipelines.evaluation.beir_folder import read_beir_folder
from pipelines.evaluation.dataset_corpus import DatasetCorpus
from pipelines.evaluation.measurement import ModelIdentity
from pipelines.evaluation.pooling_pairs import DatasetQueries, PoolingPair, Retrieval
from pipelines.evaluation.retrieval_metrics import QueryMetrics
from pipelines.evaluation.retrieval_settings import RetrievalSettings
from pipelines.evaluation.storage_plot import plot_storage
from pipelines.evaluation.storage_quality import StorageQuality, check_dimensions, compare_storage
from pipelines.storage import Storage
from support.beir import write_beir
from support.vectors import VectorRow, make_pin, make_space, publish_index, write_vectors

pytest.importorskip("pytrec_eval", reason="the extra evaluate is not installed")

DIMENSION, DOCUMENTS, QUERIES = 32, 300, 40
RANDOM = np.random.default_rng(11)
VECTORS = RANDOM.standard_normal((DOCUMENTS, DIMENSION)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
NOISY = VECTORS[:QUERIES] + 0.25 * RANDOM.standard_normal((QUERIES, DIMENSION)).astype(np.float32)
NOISY /= np.linalg.norm(NOISY, axis=1, keepdims=True)


def a_dataset(tmp_path):
    return read_beir_folder(
        str(
            write_beir(
                tmp_path / "dataset",
                corpus=[{"_id": f"d{n}", "title": "", "text": "t"} for n in range(DOCUMENTS)],
                queries=[{"_id": f"q{n}", "text": "t"} for n in range(QUERIES)],
                qrels=[f"q{n}\td{n}\t1" for n in range(QUERIES)],
            )
        ),
        "test",
    )


def what_was_found(tmp_path, pin: Pin) -> Retrieval:
    rows = [VectorRow(f"d{number}", vector) for number, vector in enumerate(VECTORS)]
    write_vectors(tmp_path / "vectors", pin, [rows[:100], rows[100:250], rows[250:]])
    publish_index(tmp_path / "vectors", pin)
    return Retrieval(
        own=PoolingPair.of(pin.space),
        metrics={},
        queries=DatasetQueries(NOISY, 0, ModelIdentity("space", {})),
        corpus=DatasetCorpus(Storage(str(tmp_path / "vectors")), pin, DOCUMENTS, 0, ()),
    )


@pytest.fixture
def compared(tmp_path, monkeypatch) -> dict[tuple[str, int], StorageQuality]:
    settings = RetrievalSettings(dataset="d", storage=True, storage_dims=(DIMENSION, 8))
    found = what_was_found(tmp_path, make_pin(make_space(DIMENSION)))
    choices = compare_storage(a_dataset(tmp_path), found, settings)
    return {(choice.name, choice.dimensions): choice for choice in choices}


def by_brute_force(queries, documents) -> float:
    """nDCG@10 with one relevant document for each query: the document of its number."""
    scores = queries @ documents.T
    gains = []
    for number, row in enumerate(scores):
        ahead = int((row > row[number]).sum())
        gains.append(1 / np.log2(ahead + 2) if ahead < 10 else 0.0)
    return float(np.mean(gains))


def test_float32_is_the_exact_ranking_at_all_and_at_fewer_dimensions(compared):
    for dimensions in (DIMENSION, 8):
        cut = VECTORS[:, :dimensions]
        unit = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        expected = by_brute_force(NOISY[:, :dimensions], unit)
        assert compared["float32", dimensions].ndcg == pytest.approx(expected, abs=1e-6)
        assert 0 < expected < 1
    own = np.arange(QUERIES)
    scores = NOISY[:, :8] @ unit.T
    ranks = (scores > scores[own, own][:, None]).sum(axis=1)
    assert {9, 11} <= set(ranks), "no document at the cut: the test shows less"


def test_half_and_int8_lose_next_to_nothing_and_signs_lose_more(compared):
    exact = compared["float32", DIMENSION].ndcg
    assert compared["float16", DIMENSION].ndcg == pytest.approx(exact, abs=0.02)
    assert compared["int8", DIMENSION].ndcg == pytest.approx(exact, abs=0.05)
    assert compared["binary, Hamming", DIMENSION].ndcg < exact
    assert compared["binary, float query", DIMENSION].ndcg < exact


def test_signs_alone_are_ranked_by_what_both_sides_keep(compared):
    signs = np.where(VECTORS > 0, 1.0, -1.0)
    asymmetric = by_brute_force(NOISY, signs)
    assert compared["binary, float query", DIMENSION].ndcg == pytest.approx(asymmetric, abs=1e-6)


def test_ties_of_hamming_distances_are_cut_as_trec_eval_cuts_them(compared):
    signs = np.where(VECTORS[:, :8] > 0, 1.0, -1.0)
    scores = np.where(NOISY[:, :8] > 0, 1.0, -1.0) @ signs.T
    judge = QueryMetrics({f"q{n}": {f"d{n}": 1} for n in range(QUERIES)})
    everything = [
        judge.of(f"q{n}", {f"d{m}": float(score) for m, score in enumerate(row)})["ndcg_at_10"]
        for n, row in enumerate(scores)
    ]
    assert compared["binary, Hamming", 8].ndcg == pytest.approx(np.mean(everything), abs=1e-9)
    assert np.mean(everything) > 0


def test_rescoring_brings_back_what_hamming_distances_lost(compared):
    rescored = compared["binary, rescored by int8", DIMENSION]
    assert rescored.ndcg > compared["binary, Hamming", DIMENSION].ndcg
    assert rescored.ndcg == pytest.approx(compared["int8", DIMENSION].ndcg, abs=0.1)


def test_rescoring_all_documents_is_the_int8_ranking(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_quality, "_RESCORED", DOCUMENTS)
    settings = RetrievalSettings(dataset="d", storage=True, storage_dims=(DIMENSION,))
    found = what_was_found(tmp_path, make_pin(make_space(DIMENSION)))
    ndcg = {c.name: c.ndcg for c in compare_storage(a_dataset(tmp_path), found, settings)}
    assert ndcg["binary, rescored by int8"] == pytest.approx(ndcg["int8"], abs=1e-9)


def test_bytes_are_those_of_what_is_stored(compared):
    assert {name: choice.bytes_per_vector for (name, d), choice in compared.items() if d == 8} == {
        "float32": 32,
        "float16": 16,
        "int8": 8,
        "binary, rescored by int8": 9,
        "binary, float query": 1,
        "binary, Hamming": 1,
    }


def test_where_no_dimensions_are_named_all_a_half_and_a_quarter_are_compared():
    settings = RetrievalSettings(dataset="d", storage=True)
    assert check_dimensions(settings, 384) == [384, 192, 96]
    assert check_dimensions(settings, 3) == [3, 1]


def test_more_dimensions_than_there_are_is_refused(tmp_path):
    settings = RetrievalSettings(dataset="d", storage=True, storage_dims=(DIMENSION + 1,))
    found = what_was_found(tmp_path, make_pin(make_space(DIMENSION)))
    with pytest.raises(InvalidInputError, match="at most the 32 dimensions"):
        compare_storage(a_dataset(tmp_path), found, settings)


def test_the_plot_is_an_svg_that_is_the_same_for_the_same_figures(tmp_path):
    pytest.importorskip("matplotlib", reason="the extra evaluate is not installed")
    choices = [StorageQuality("int8", size, size, size / 100) for size in (8, 16)]
    files = [tmp_path / "plots" / name for name in ("a.svg", "b.svg")]
    for file in files:
        plot_storage(choices, str(file))
    first, second = (file.read_text(encoding="utf-8") for file in files)
    assert first == second
    assert "nDCG@10" in first
    assert "int8" in first
