"""ONNX and OpenVINO graphs: both poolings, any shape, usable as their README says."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoder.encoder import load_encoder
from encoder.errors import BackendError, InvalidInputError, ModelLoadError
from encoder.export.export import ExportedModel, export_model
from encoder.export.formats import ExportFormat
from encoder.export.onnx_format import OnnxFormat
from encoder.export.openvino_format import OpenVinoFormat
from encoder.export.pooled_graph import PooledGraph
from encoder.settings import EncoderSettings
from encoder.space import Role
from support.transformers import tiny_transformer

FORMATS = [
    # torch.export takes 4 s for each.
    pytest.param(OnnxFormat(), "model.onnx", id="onnx", marks=pytest.mark.slow),
    pytest.param(OpenVinoFormat(), "openvino_model.xml", id="openvino"),
]
TEXTS = ["how do I sort a list?", "one", "read a file and count its words, line by line " * 20]


def _export(
    export_format: ExportFormat, model: Path, output: Path, **settings: Any
) -> ExportedModel:
    return export_model(EncoderSettings(model=str(model), **settings), str(output), export_format)


def _snippet(folder: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return str(code)


@pytest.mark.parametrize(("export_format", "file"), FORMATS)
def test_the_readme_s_code_gives_our_vectors_for_both_roles(
    export_format: ExportFormat,
    file: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"query_prompt": "query: ", "max_seq_length": 64, "truncate_dim": 20}
    exported = _export(export_format, tiny_model, tmp_path / "out", **settings)
    assert exported.fidelity is not None
    assert exported.fidelity.min_cosine > 0.99999
    assert (tmp_path / "out" / file).is_file()

    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(_snippet(tmp_path / "out"), names)

    encoder = load_encoder(
        EncoderSettings(model=str(tiny_model), backend="torch", dtype="float32", **settings)
    )
    for role in Role:
        expected = encoder.encode(TEXTS, role).vectors
        for texts, rows in ((TEXTS, slice(None)), (TEXTS[1:2], slice(1, 2))):
            found = names["embed"](texts, role.value)
            np.testing.assert_allclose(found, expected[rows], atol=2e-5)
    encoder.close()


@pytest.mark.parametrize(("export_format", "file"), FORMATS)
def test_vectors_that_are_not_normalized_keep_their_length(
    export_format: ExportFormat,
    file: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _export(export_format, tiny_model, tmp_path / "out", normalize=False)
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(_snippet(tmp_path / "out"), names)
    encoder = load_encoder(
        EncoderSettings(model=str(tiny_model), backend="torch", dtype="float32", normalize=False)
    )
    expected = encoder.encode(TEXTS, Role.DOCUMENT).vectors
    encoder.close()
    assert np.linalg.norm(expected, axis=1).min() > 2
    np.testing.assert_allclose(names["embed"](TEXTS, "document"), expected, atol=1e-4)


@pytest.mark.slow
def test_an_onnx_graph_says_its_space_and_its_roles_outputs(
    tiny_model: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    exported = _export(OnnxFormat(), tiny_model, tmp_path / "out")
    graph = onnx.load(tmp_path / "out/model.onnx")
    said = {prop.key: prop.value for prop in graph.metadata_props}
    assert said["embedding_space_fingerprint"] == exported.space.fingerprint
    assert said["embedding_space"] == exported.space.to_json()
    assert (said["query_output"], said["document_output"]) == ("mean", "cls")


def test_weights_of_an_openvino_graph_stay_float32(tiny_model: Path, tmp_path: Path) -> None:
    _export(OpenVinoFormat(), tiny_model, tmp_path / "out")
    weights = (tiny_model / "model.safetensors").stat().st_size
    # BERT's pooler, which no pooling here uses, is left out.
    assert (tmp_path / "out/openvino_model.bin").stat().st_size > 0.9 * weights


@pytest.mark.parametrize("layers", [2, 4])
def test_padding_that_sees_no_token_spoils_no_text(
    tiny_model: Path, tmp_path: Path, layers: int
) -> None:
    # ModernBERT: the local window of a row that is far in the padding is masked as a whole.
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    options = {"global_attn_every_n_layers": 2, "local_attention": 16, "num_hidden_layers": layers}
    special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    model = tiny_transformer("modernbert", vocab_size=vocab_size, **options, **special)
    model.save_pretrained(folder)
    exported = _export(
        OpenVinoFormat(), folder, tmp_path / "out", query_pooling="mean", document_pooling="cls"
    )
    assert exported.fidelity is not None
    assert exported.fidelity.min_cosine > 0.9999


@pytest.mark.parametrize(("export_format", "file"), FORMATS)
def test_a_graph_that_gives_other_vectors_is_not_left_behind(
    export_format: ExportFormat,
    file: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finished = PooledGraph._finished
    monkeypatch.setattr(
        PooledGraph, "_finished", lambda self, vectors: finished(self, vectors + 0.05)
    )
    with pytest.raises(BackendError, match=f"expected {file} to give the model's float32 vectors"):
        _export(export_format, tiny_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "encoder.export.onnx_format.find_spec",
        lambda name: None if name in packages else find(name),
    )


def test_without_onnxruntime_the_onnx_graph_is_checked_in_openvino(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, "onnxruntime")
    exported = _export(OnnxFormat(), tiny_model, tmp_path / "out")
    assert exported.fidelity is not None
    assert exported.fidelity.runtime.startswith("openvino 20")
    assert exported.fidelity.min_cosine > 0.99999


def test_without_any_runtime_the_readme_says_that_nothing_was_checked(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, "onnxruntime", "openvino")
    assert _export(OnnxFormat(), tiny_model, tmp_path / "out").fidelity is None
    assert "Not checked" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_extra_says_how_to_install_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInputError, match=rf"package {package}.*twofold\[export\]"):
        _export(OnnxFormat(), tiny_model, tmp_path / "out")


def test_a_missing_openvino_says_how_to_install_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelLoadError, match=r"pip install 'twofold\[cpu\]', or export another"):
        _export(OpenVinoFormat(), tiny_model, tmp_path / "out")
