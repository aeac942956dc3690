"""Vectors of documents that were kept meet queries of an encoder that computes alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from encoder.corpus_files import PROBE_VECTORS_FILE
from encoder.encoder import load_encoder
from encoder.errors import SpaceMismatchError
from encoder.probe_vectors import ProbeVectors
from encoder.settings import EncoderSettings
from encoder.space import Pooling
from pipelines.evaluation import dataset_corpus
from pipelines.evaluation.beir_folder import read_beir_folder
from pipelines.evaluation.pooling_pairs import PoolingPair, retrieve
from pipelines.evaluation.retrieval_settings import RetrievalSettings
from pipelines.storage import Storage
from support.beir import write_beir
from support.vectors import VectorRow, make_pin, publish_index, write_vectors

pytest.importorskip("pytrec_eval", reason="the extra evaluate is not installed")

OWN = PoolingPair(Pooling.MEAN, Pooling.CLS)


def encoder_settings(model: Path, document: Pooling) -> EncoderSettings:
    return EncoderSettings(
        model=str(model),
        backend="torch",
        dtype="float32",
        device="cpu",
        query_pooling=OWN.query,
        document_pooling=document,
    )


@pytest.fixture
def edited_model(tiny_model, tmp_path) -> Path:
    """The same weights behind another config.json: no fingerprint tells them apart."""
    folder = tmp_path / "edited"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    return folder


def keep_vectors(output: Path, settings: EncoderSettings, dataset: Path) -> None:
    """Leave what an earlier run of `embed_corpus` would have left."""
    encoder = load_encoder(settings)
    folder = output / dataset.name / f"{encoder.space.fingerprint}-torch-float32"
    pin = make_pin(encoder.space)
    rows = [[VectorRow(name, [1.0] * encoder.space.dimension)] for name in ("d1", "d2", "d3")]
    write_vectors(folder, pin, rows, source=str(dataset / "corpus.jsonl"))
    publish_index(folder, pin)
    probe = ProbeVectors.of(encoder).to_json().encode()
    assert Storage(str(folder)).create(PROBE_VECTORS_FILE, probe)


@pytest.mark.parametrize("edited", [None, Pooling.CLS, Pooling.MEAN])
def test_kept_vectors_of_an_encoder_that_computed_others_are_refused(
    tiny_model, edited_model, tmp_path, monkeypatch, edited
):
    dataset, output = write_beir(tmp_path / "d"), tmp_path / "out"
    for document in Pooling:
        model = edited_model if document is edited else tiny_model
        keep_vectors(output, encoder_settings(model, document), dataset)
    monkeypatch.setattr(dataset_corpus, "embed_corpus", lambda _: None)
    settings = RetrievalSettings(
        dataset=str(dataset),
        output=str(output),
        ablation=True,
        encoder=encoder_settings(tiny_model, OWN.document),
    )
    read = read_beir_folder(str(dataset), "test")
    if edited is None:
        found = retrieve(read, settings)
        assert len(found.metrics) == 4
        own = load_encoder(encoder_settings(tiny_model, OWN.document)).space
        assert found.queries.model.space == own.fingerprint
        return
    with pytest.raises(SpaceMismatchError, match=f"that wrote {output}"):
        retrieve(read, settings)
