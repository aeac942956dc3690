"""The command up to the embedding: what is wrong is said before anything is embedded."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.errors import InvalidInputError
from encoder.model.description import describe_model
from encoder.settings import EncoderSettings
from encoder.space import Pooling
from pipelines.corpus.shards import ShardName
from pipelines.errors import exit_code
from pipelines.evaluation import retrieval
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
def test_a_broken_dataset_is_refused_before_anything_is_embedded(tmp_path, capsys):
    folder = write_beir(tmp_path / "d", qrels=["q1\tnobody\t1"])
    assert retrieval.main(["--dataset", str(folder)]) == 2
    assert "'nobody'" in capsys.readouterr().err


def test_the_report_says_which_columns_of_the_documents_were_embedded(
    tmp_path, capsys, monkeypatch
):
    def retrieve(dataset, _):
        own = PoolingPair(Pooling.MEAN, Pooling.CLS)
        metrics = {own: {query: dict.fromkeys(METRICS, 0.5) for query in dataset.queries}}
        queries = DatasetQueries(np.zeros((2, 4), np.float32), 0, ModelIdentity("space", {}))
        return Retrieval(own, metrics, queries, DatasetCorpus(None, None, 3, 0))

    monkeypatch.setattr(retrieval, "retrieve", retrieve)
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
