"""The command up to the embedding: what is wrong is said before anything is embedded."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from encoder.errors import InvalidInputError
from encoder.model.description import describe_model
from encoder.settings import EncoderSettings
from encoder.space import Pooling
from pipelines.corpus.shards import ShardName
from pipelines.errors import exit_code
from pipelines.evaluation import dataset_corpus, retrieval
from pipelines.evaluation.beir_folder import read_beir_folder
from pipelines.evaluation.dataset_corpus import DatasetCorpus, embed_dataset
from pipelines.evaluation.measurement import ModelIdentity
from pipelines.evaluation.pooling_pairs import DatasetQueries, PoolingPair, Retrieval, scores_of
from pipelines.evaluation.retrieval_metrics import METRICS
from pipelines.ranking import Place, Ranked
from pipelines.settings import JobSettings
from support.beir import CORPUS, write_beir
from support.vectors import VectorRow, make_pin, publish_index, write_vectors

pytest.importorskip("pytrec_eval", reason="the extra evaluate is not installed")


@pytest.fixture
def nothing_embedded(monkeypatch):
    def embed(*_):
        raise AssertionError("something was embedded")

    monkeypatch.setattr(retrieval, "retrieve", embed)


@pytest.mark.usefixtures("nothing_embedded")
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--split", "dev"], "qrels/dev.tsv"),
        (["--expect", "ndcg=0.5"], "--expect"),
        (["--expect", "nowhere.json"], "nowhere.json"),
        (["--plot", "a.svg"], "--storage"),
        (["--storage", "--embedding-dtype", "float16"], "float32"),
        (["--storage", "--storage-dims", "0"], "at least 1"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_embedded(tmp_path, capsys, flags, says):
    folder = write_beir(tmp_path / "d")
    assert retrieval.main(["--dataset", str(folder), *flags]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("twofold: error") == 1


@pytest.mark.usefixtures("nothing_embedded")
def test_more_dimensions_than_the_model_has_are_refused_before_anything_is_embedded(
    tmp_path, tiny_model, capsys
):
    folder, model = write_beir(tmp_path / "d"), ("--model", str(tiny_model))
    poolings = ("--query-pooling", "mean", "--document-pooling", "cls")
    flags = ("--storage", "--storage-dims", "9999")
    assert retrieval.main(["--dataset", str(folder), *model, *poolings, *flags]) == 2
    assert "--storage-dims: expected at most the" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_embedded")
def test_a_broken_dataset_is_refused_before_anything_is_embedded(tmp_path, capsys):
    folder = write_beir(tmp_path / "d", qrels=["q1\tnobody\t1"])
    assert retrieval.main(["--dataset", str(folder)]) == 2
    assert "'nobody'" in capsys.readouterr().err


@pytest.fixture
def kept_vectors(monkeypatch) -> list[str]:
    """What the documents' vectors were computed in; the queries' are of torch in float32."""
    documents = ["torch float32"]

    def retrieve(dataset, _):
        own = PoolingPair(Pooling.MEAN, Pooling.CLS)
        metrics = {own: {query: dict.fromkeys(METRICS, 0.5) for query in dataset.queries}}
        model = ModelIdentity("space", {"backend": "torch", "dtype": "float32"})
        queries = DatasetQueries(np.zeros((2, 4), np.float32), 0, model)
        return Retrieval(own, metrics, queries, DatasetCorpus(None, None, 3, 0, tuple(documents)))

    monkeypatch.setattr(retrieval, "retrieve", retrieve)
    return documents


def test_documents_of_another_precision_than_the_queries_are_said(tmp_path, capsys, kept_vectors):
    arguments = ["--dataset", str(write_beir(tmp_path / "d")), "--json", str(tmp_path / "out.json")]
    assert retrieval.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "test: 3 documents, 2 queries, 3 judgements\n" in printed
    assert "model: torch, float32, space space\n" in printed
    assert printed.count("0.50000") == len(METRICS)
    assert "the documents are vectors of" not in printed
    kept_vectors.insert(0, "openvino bfloat16")
    assert retrieval.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "the documents are vectors of openvino bfloat16 and torch float32, kept" in printed
    assert "the queries are torch float32" in printed
    assert json.loads((tmp_path / "out.json").read_text())["documents_ran_as"] == kept_vectors


def test_documents_tell_what_their_vectors_were_computed_in_whatever_auto_is_now(
    tmp_path, tiny_model, monkeypatch
):
    encoder = EncoderSettings(
        model=str(tiny_model), query_pooling=Pooling.MEAN, document_pooling=Pooling.CLS
    )
    space = describe_model(encoder).space
    pin = make_pin(space)
    dataset = read_beir_folder(str(write_beir(tmp_path / "d")), "test")
    folder = tmp_path / "out" / f"{space.fingerprint}-auto-auto"
    rows = [[VectorRow(name, [0.0] * space.dimension)] for name in ("d1", "d2")]
    write_vectors(folder, pin, rows, source=dataset.corpus)
    publish_index(folder, pin)
    monkeypatch.setattr(dataset_corpus, "embed_corpus", lambda _: None)
    found = embed_dataset(dataset, str(tmp_path / "out"), encoder, JobSettings())
    # What support.vectors says of its shards.
    assert found.ran_as == ("float32",)


@pytest.mark.parametrize("graph", [None, "ab" * 32])
def test_what_is_embedded_is_the_datasets_own_columns_into_a_folder_of_its_precision(
    tmp_path, tiny_model, monkeypatch, graph
):
    """Two calibrations of one model in int8 are two graphs, whose vectors must not meet."""
    asked = []

    class AskedError(Exception):
        pass

    def embed_corpus(settings):
        asked.append(settings)
        raise AskedError

    encoder = EncoderSettings(
        model=str(tiny_model), query_pooling=Pooling.MEAN, document_pooling=Pooling.CLS
    )
    model = describe_model(encoder)
    if graph is not None:
        model = replace(model, provenance={**model.provenance, "int8_graph": graph})
    monkeypatch.setattr(dataset_corpus, "describe_model", lambda _: model)
    monkeypatch.setattr(dataset_corpus, "embed_corpus", embed_corpus)
    dataset = read_beir_folder(str(write_beir(tmp_path / "d")), "test")
    with pytest.raises(AskedError):
        embed_dataset(dataset, str(tmp_path / "out"), encoder, JobSettings(rows_per_shard=7))
    [found] = asked
    assert (found.input, found.id_column) == ((dataset.corpus,), "_id")
    assert found.text_column == ("title", "text")
    assert (found.encoder, found.rows_per_shard) == (encoder, 7)
    ending = "" if graph is None else f"-{graph[:16]}"
    assert found.output == f"{tmp_path}/out/{model.space.fingerprint}-auto-auto{ending}"


@pytest.mark.usefixtures("kept_vectors")
def test_the_report_says_which_columns_of_the_documents_were_embedded(tmp_path, capsys):
    plain = [{"_id": f"d{number}", "text": "x"} for number in (1, 2, 3)]
    for name, corpus, said in (("a", CORPUS, "title and text"), ("b", plain, "text")):
        folder = write_beir(tmp_path / name, corpus=corpus)
        assert retrieval.main(["--dataset", str(folder)]) == 0
        assert f"of a document: {said}\n" in capsys.readouterr().out


def a_ranking(*names: str) -> list[Ranked]:
    place = Place(0, ShardName("0" * 32, 0, True), 0)
    return [Ranked(name, 1 / (rank + 1), place) for rank, name in enumerate(names)]


def test_a_query_passes_over_the_document_of_its_own_id_if_asked_to():
    ranked = a_ranking("q", "a", "b")
    with_it = scores_of("q", ranked, k=2, ignore_identical_ids=False)
    without = scores_of("q", ranked, k=2, ignore_identical_ids=True)
    assert list(with_it) == ["q", "a"]
    assert list(without) == ["a", "b"]


def test_vectors_of_another_corpus_are_refused(tmp_path, tiny_model):
    encoder = EncoderSettings(
        model=str(tiny_model), query_pooling=Pooling.MEAN, document_pooling=Pooling.CLS
    )
    space = describe_model(encoder).space
    pin = make_pin(space)
    folder = tmp_path / "out" / f"{space.fingerprint}-auto-auto"
    write_vectors(folder, pin, [[VectorRow("x", [0.0] * space.dimension)]], source="/other.jsonl")
    publish_index(folder, pin)
    dataset = read_beir_folder(str(write_beir(tmp_path / "d")), "test")
    with pytest.raises(InvalidInputError, match=r"found those of /other\.jsonl") as caught:
        embed_dataset(dataset, str(tmp_path / "out"), encoder, JobSettings())
    assert exit_code(caught.value) == 2
