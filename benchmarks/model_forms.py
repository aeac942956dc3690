"""NoInstruct's architecture with random weights, in the forms that this project and its peers read.

    python -m benchmarks.model_forms FOLDER

writes `ours` and `peers` below FOLDER: a process of its own, since it needs torch, which the load
generator must not carry. The peers' form says in Sentence Transformers' files that texts are mean
pooled and normalized, which is what a query gets here; one of them also needs it as ONNX.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.paths import REPOSITORY

__all__ = ["ModelFolders", "export_onnx", "prepare_models"]

_EXPORT = REPOSITORY / "benchmarks/peers/export_onnx.py"
_DIMENSION = 384
_MAX_TOKENS = 512
_MODULES = {
    "": "sentence_transformers.models.Transformer",
    "1_Pooling": "sentence_transformers.models.Pooling",
    "2_Normalize": "sentence_transformers.models.Normalize",
}
_SHOWN = 500


@dataclass(frozen=True)
class ModelFolders:
    """One model in two forms.

    Attributes:
        ours: As the hub has NoInstruct.
        peers: With Sentence Transformers' files; `model.onnx` in it where it could be exported.
        hub_cache: Where Infinity finds the optimized graph.
        onnx_problem: Why it could not be exported.
    """

    ours: Path
    peers: Path
    hub_cache: Path
    onnx_problem: str | None


def prepare_models(folder: Path, onnx_python: Path) -> ModelFolders:
    """Make what is not there yet.

    Args:
        folder: Keeps the model between runs; the same weights each time.
        onnx_python: Of the environment that can export to ONNX; it may be absent.

    Raises:
        BenchmarkError: The model could not be made.
    """
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run([sys.executable, "-m", "benchmarks.model_forms", str(folder)])
        complete.touch()
    model, hub_cache = folder / "peers", folder / "hub"
    return ModelFolders(
        folder / "ours", model, hub_cache, export_onnx(model, hub_cache, onnx_python)
    )


def export_onnx(model: Path, hub_cache: Path, python: Path) -> str | None:
    """Write a folder's model.onnx once; return what went wrong.

    Args:
        model: With Sentence Transformers' files.
        hub_cache: Where Infinity finds the optimized graph.
        python: Of the environment that can export; it may be absent.
    """
    if (model / "model.onnx").exists():
        return None
    if not python.exists():
        return f"{python} is not there: make bench-peers"
    try:
        _run([str(python), str(_EXPORT), str(model), str(hub_cache)])
    except BenchmarkError as error:
        return str(error)
    return None


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed: {done.stderr[-_SHOWN:].strip()}")


def _write(folder: Path) -> None:
    from benchmarks.models import save_random_noinstruct

    save_random_noinstruct(folder / "ours")
    peers = save_random_noinstruct(folder / "peers")
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(_MODULES.items())
    ]
    _write_json(peers / "modules.json", modules)
    _write_json(
        peers / "sentence_bert_config.json",
        {"max_seq_length": _MAX_TOKENS, "do_lower_case": False},
    )
    _write_json(
        peers / "1_Pooling/config.json",
        {
            "word_embedding_dimension": _DIMENSION,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
        },
    )
    (peers / "2_Normalize").mkdir()


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
