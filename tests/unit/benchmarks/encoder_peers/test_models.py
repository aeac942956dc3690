"""The models are the same for all systems, cut at the same length."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.encoder_peers.models import pooled_for_documents, prepare_model
from benchmarks.models import minilm_folder


def test_minilm_says_256_tokens_where_every_system_reads_it(tmp_path):
    model = prepare_model("minilm", tmp_path, Path("absent"))
    assert model.max_tokens == 256
    for file, name in {
        "tokenizer_config.json": "model_max_length",
        "sentence_bert_config.json": "max_seq_length",
    }.items():
        assert json.loads((model.peers / file).read_text())[name] == 256
    packaged = json.loads((minilm_folder() / "tokenizer_config.json").read_text())
    assert packaged["model_max_length"] == 512


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_jobs_libraries_pool_as_documents_are_pooled(tmp_path, pooling):
    made = prepare_model("minilm", tmp_path / "bench", Path("absent"))
    model = pooled_for_documents(replace(made, document_pooling=pooling), tmp_path / "links")
    config = json.loads((model.peers / "1_Pooling/config.json").read_text())
    modes = {mode: config[f"pooling_mode_{mode}"] for mode in ("cls_token", "mean_tokens")}
    assert modes == {"cls_token": pooling == "cls", "mean_tokens": pooling == "mean"}
    assert (model.peers / "model.safetensors").resolve().parent == made.peers.resolve()
    untouched = json.loads((made.peers / "1_Pooling/config.json").read_text())
    assert untouched["pooling_mode_mean_tokens"] is True


def test_without_an_environment_that_exports_the_reason_is_kept(tmp_path):
    model = prepare_model("minilm", tmp_path, tmp_path / "bin/python")
    assert model.onnx_problem is not None
    assert "make bench-peers" in model.onnx_problem
    # Made once: the second time finds it as it is.
    assert prepare_model("minilm", tmp_path, tmp_path / "bin/python") == model
