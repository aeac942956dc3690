"""The models that every system gets, in the form that each reads; made once, kept in .bench.

Libraries pool one way: by the mean here, as queries are. Where a model's own files say nothing of
it (NoInstruct), theirs are written beside it.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.model_forms import export_onnx, prepare_models
from benchmarks.models import minilm_folder

__all__ = ["MODELS", "BenchmarkModel", "pooled_for_documents", "prepare_model"]

MODELS = ("minilm", "noinstruct")


@dataclass(frozen=True)
class BenchmarkModel:
    """A model on this disk.

    Attributes:
        name: One of `MODELS`.
        ours: What twofold loads.
        peers: With Sentence Transformers' files, and model.onnx where it could be exported.
        hub_cache: Where Infinity finds the optimized graph.
        max_tokens: Where texts are cut.
        document_pooling: "cls" or "mean".
        onnx_problem: Why there is no model.onnx.
    """

    name: str
    ours: Path
    peers: Path
    hub_cache: Path
    max_tokens: int
    document_pooling: str
    onnx_problem: str | None


def prepare_model(name: str, bench: Path, onnx_python: Path) -> BenchmarkModel:
    """Make what is not there yet.

    Args:
        name: One of `MODELS`.
        bench: Keeps models between runs.
        onnx_python: Of the environment that can export to ONNX; it may be absent.

    Raises:
        BenchmarkError: The model could not be made.
    """
    if name == "noinstruct":
        made = prepare_models(bench / "models", onnx_python)
        return BenchmarkModel(
            name, made.ours, made.peers, made.hub_cache, 512, "cls", made.onnx_problem
        )
    folder = bench / "models-minilm"
    model, hub_cache = folder / "peers", folder / "hub"
    if not (model / "2_Normalize").is_dir():
        shutil.copytree(minilm_folder(), model, dirs_exist_ok=True)
        # Packed without this empty folder, which modules.json names.
        (model / "2_Normalize").mkdir()
    _cut_at(model / "tokenizer_config.json", 256)
    problem = export_onnx(model, hub_cache, onnx_python)
    return BenchmarkModel(name, model, model, hub_cache, 256, "mean", problem)


def pooled_for_documents(model: BenchmarkModel, folder: Path) -> BenchmarkModel:
    """Return a model whose form for libraries pools as documents are, so that vectors are equal.

    Args:
        model: Pools by the mean there.
        folder: Must not exist; gets links to its files.
    """
    shutil.copytree(model.peers.absolute(), folder, copy_function=os.symlink)
    config = folder / "1_Pooling/config.json"
    content = json.loads(config.read_text())
    config.unlink()
    by_cls = model.document_pooling == "cls"
    modes = {"pooling_mode_cls_token": by_cls, "pooling_mode_mean_tokens": not by_cls}
    config.write_text(json.dumps({**content, **modes}))
    return replace(model, peers=folder)


def _cut_at(config: Path, max_tokens: int) -> None:
    """Say where texts are cut in the file that systems read it from which know no other.

    all-MiniLM-L6-v2 says 512 there and 256 in sentence_bert_config.json: Infinity's ONNX engine and
    fastembed would compute twice as much of a long text, and give another vector.
    """
    content = json.loads(config.read_text())
    if content.get("model_max_length") != max_tokens:
        config.write_text(json.dumps({**content, "model_max_length": max_tokens}, indent=2))
