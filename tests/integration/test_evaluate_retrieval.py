"""`twofold evaluate retrieval` from a dataset's folder to its figures, on a disk and on a store."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from encoder.backends.choice import detect_hardware
from encoder.encoder import load_encoder
from encoder.settings import BackendName, EncoderSettings
from encoder.space import Pooling, Role
from pipelines.evaluation import retrieval
from pipelines.evaluation.retrieval_metrics import METRICS, QueryMetrics, mean_metrics
from support.beir import evaluation_data, write_beir
from support.s3_store import S3Store

pytest.importorskip("pytrec_eval", reason="the extra evaluate is not installed")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
]

WORDS = ("river", "stone", "cloud", "engine", "paper", "garden", "silver", "window", "thunder")
CORPUS = [
    {"_id": f"d{n}", "title": f"{a} {b}" if n % 3 else "", "text": f"the {a} and a {b} of {n}"}
    for n, (a, b) in enumerate(product(WORDS, WORDS))
]
QUERIES = [{"_id": f"q{n}", "text": f"{a} with {a}"} for n, a in enumerate(WORDS)]
QRELS = [
    f"q{n}\td{m}\t{1 + (a == b)}"
    for n, word in enumerate(WORDS)
    for m, (a, b) in enumerate(product(WORDS, WORDS))
    if word == a
]
LIGHT = ("--backend", "torch", "--num-cpus-per-actor", "1", "--num-threads", "1")
ASYMMETRIC = ("--query-pooling", "mean", "--document-pooling", "cls")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "words"
    return write_beir(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS)


def evaluated(folder: Path, *flags: str) -> dict[str, Any]:
    """Run the command and return what it wrote."""
    file = folder / "result.json"
    assert retrieval.main([*flags, "--json", str(file)]) == 0
    return json.loads(file.read_text(encoding="utf-8"))


def by_hand(model: Path, query: Pooling, document: Pooling) -> dict[str, float]:
    """The definition: encode all, compare all, judge."""
    encoder = load_encoder(
        EncoderSettings(
            model=str(model),
            backend=BackendName.TORCH,
            query_pooling=query,
            document_pooling=document,
            num_threads=1,
        )
    )
    texts = [f"{row['title']} {row['text']}".strip() for row in CORPUS]
    documents = encoder.encode(texts, Role.DOCUMENT).vectors
    queries = encoder.encode([row["text"] for row in QUERIES], Role.QUERY).vectors
    encoder.close()
    qrels: dict[str, dict[str, int]] = {row["_id"]: {} for row in QUERIES}
    for name, found, score in (line.split("\t") for line in QRELS):
        qrels[name][found] = int(score)
    judge = QueryMetrics(qrels)
    return mean_metrics(
        [
            judge.of(
                row["_id"],
                {each["_id"]: float(s) for each, s in zip(CORPUS, scores, strict=True)},
            )
            for row, scores in zip(QUERIES, queries @ documents.T, strict=True)
        ]
    )


def test_the_figures_are_those_of_encoding_and_comparing_everything(dataset, tiny_model, tmp_path):
    result = evaluated(
        tmp_path,
        *("--dataset", str(dataset), "--output", str(tmp_path / "out")),
        *("--model", str(tiny_model), *LIGHT, *ASYMMETRIC),
        *("--per-query", str(tmp_path / "queries.jsonl")),
    )
    expected = by_hand(tiny_model, Pooling.MEAN, Pooling.CLS)
    assert result["metrics"] == pytest.approx(expected, abs=1e-3)
    assert 0 < result["metrics"]["ndcg_at_10"] < 1
    assert result["counts"]["documents"] == len(CORPUS)
    assert result["counts"]["documents that the model rejected"] == 0
    lines = (tmp_path / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["query"] for row in rows] == [row["_id"] for row in QUERIES]
    assert np.mean([row["ndcg_at_10"] for row in rows]) == pytest.approx(
        result["metrics"]["ndcg_at_10"]
    )


def test_an_ablation_compares_the_four_pairs_and_a_second_run_embeds_nothing(
    dataset, tiny_model, tmp_path, capsys
):
    flags = (
        *("--dataset", str(dataset), "--output", str(tmp_path / "out")),
        *("--model", str(tiny_model), *LIGHT, *ASYMMETRIC),
    )
    result = evaluated(tmp_path, *flags, "--ablation")
    pairs = {(each["query"], each["document"]): each["metrics"] for each in result["poolings"]}
    assert set(pairs) == set(product(["cls", "mean"], repeat=2))
    for query, document in pairs:
        expected = by_hand(tiny_model, Pooling(query), Pooling(document))
        assert pairs[query, document] == pytest.approx(expected, abs=1e-3)
    assert len({metrics["ndcg_at_10"] for metrics in pairs.values()}) > 1
    assert result["metrics"] == pairs["mean", "cls"]
    reports = [json.loads(file.read_text()) for file in tmp_path.glob("out/*/*/_report.json")]
    assert [report["documents"] for report in reports] == [len(CORPUS)] * 2

    again = evaluated(tmp_path, *flags)
    assert again["metrics"] == result["metrics"]
    (report,) = (
        json.loads(file.read_text())
        for file in tmp_path.glob("out/*/*/_report.json")
        if json.loads(file.read_text())["units_done_before"]
    )
    assert report["documents"] == 0


def test_a_figure_that_is_not_as_published_is_exit_code_8(dataset, tiny_model, tmp_path, capsys):
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"ndcg_at_10": 0.99, "recall_at_1000": 1.0}))
    flags = [
        *("--dataset", str(dataset), "--output", str(tmp_path / "out")),
        *("--model", str(tiny_model), *LIGHT, *ASYMMETRIC),
    ]
    assert retrieval.main([*flags, "--expect", str(table)]) == 8
    assert "expected ndcg_at_10 0.99 within 0.001, found" in capsys.readouterr().err
    assert retrieval.main([*flags, "--expect", "recall_at_1000=1"]) == 0


def on_store(store: S3Store, dataset: Path, names: Sequence[str]) -> str:
    prefix = f"{store.fresh_prefix()}/{dataset.name}"
    for name in names:
        data = (dataset / name).read_bytes()
        with fsspec.open(f"{prefix}/{name.removesuffix('.gz')}", "wb") as file:
            file.write(gzip.decompress(data) if name.endswith(".gz") else data)
    return prefix


def test_a_dataset_on_a_store_and_two_actors_give_identical_figures(
    dataset, tiny_model, tmp_path, s3_store
):
    model = ("--model", str(tiny_model), *LIGHT, *ASYMMETRIC, "--dtype", "float32")
    here = evaluated(tmp_path, "--dataset", str(dataset), "--output", str(tmp_path / "o"), *model)
    uri = on_store(s3_store, dataset, ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
    there = evaluated(
        tmp_path,
        *("--dataset", uri, "--output", f"{uri}-vectors", *model),
        *("--actors", "2", "--unit-bytes", "2000"),
    )
    assert there["data"] == [uri, "test"]
    assert there["metrics"] == here["metrics"]


@pytest.fixture(scope="module")
def scifact_in_float32(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The figures from a disk: minutes of work, which two tests look at."""
    folder = tmp_path_factory.mktemp("scifact")
    return evaluated(
        folder,
        *("--dataset", str(evaluation_data("scifact")), "--output", str(folder / "out")),
        *("--model", minilm, "--dtype", "float32"),
        *("--expect", "ndcg_at_10=0.64508", "--storage"),
    )


@pytest.mark.timeout(900)
def test_scifact_in_float32_is_as_published_and_smaller_storage_costs_little(scifact_in_float32):
    result = scifact_in_float32
    assert tuple(result["metrics"]) == METRICS
    ndcg = {(row["name"], row["dimensions"]): row["ndcg"] for row in result["storage"]}
    exact = result["metrics"]["ndcg_at_10"]
    assert ndcg["float32", 384] == pytest.approx(exact, abs=1e-6)
    assert ndcg["float16", 384] == pytest.approx(exact, abs=0.001)
    assert ndcg["int8", 384] == pytest.approx(exact, abs=0.01)


def has_a_fast_precision() -> bool:
    hardware = detect_hardware()
    return hardware.cuda or hardware.cpu_bfloat16


@pytest.mark.timeout(900)
def test_scifact_in_the_precision_of_the_machine_is_as_published(minilm, tmp_path):
    if not has_a_fast_precision():
        pytest.skip("without bfloat16 the precision is float32, which another test looks at")
    result = evaluated(
        tmp_path,
        *("--dataset", str(evaluation_data("scifact")), "--output", str(tmp_path / "out")),
        *("--model", minilm, "--expect", "ndcg_at_10=0.64508"),
    )
    assert tuple(result["metrics"]) == METRICS


@pytest.mark.timeout(900)
def test_scifact_on_a_store_and_two_actors_gives_identical_figures(
    minilm, tmp_path, s3_store, request
):
    if not has_a_fast_precision():
        pytest.skip("five minutes a run without bfloat16; a smaller dataset is on a store above")
    here = request.getfixturevalue("scifact_in_float32")
    folder = evaluation_data("scifact")
    uri = on_store(s3_store, folder, ["corpus.jsonl.gz", "queries.jsonl", "qrels/test.tsv"])
    there = evaluated(
        tmp_path,
        *("--dataset", uri, "--output", f"{uri}-vectors", "--model", minilm, "--dtype", "float32"),
        *("--actors", "2", "--num-cpus-per-actor", "1", "--unit-bytes", "1000000"),
    )
    assert there["metrics"] == here["metrics"]
