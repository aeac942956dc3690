"""Which systems take part, and how each one's process is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.encoder_peers.models import BenchmarkModel
from benchmarks.paths import REPOSITORY

__all__ = ["CARD", "System", "all_systems", "offline"]

CARD = "card"
"""The reference: its vectors are what others are compared with, and it is slow."""
_WORKER = REPOSITORY / "benchmarks/peers/encode_worker.py"
_ST, _INFINITY = "sentence-transformers", "infinity"


@dataclass(frozen=True)
class System:
    """One way to encode.

    Attributes:
        name: Unique.
        product: Who.
        engine: What does the forward.
        dtype: Precision that was asked for; "default" where the engine chooses.
        environment: Folder of the peers' environments; empty for this project's own.
        needs_onnx: Whether it reads model.onnx.
    """

    name: str
    product: str
    engine: str
    dtype: str
    environment: str = ""
    needs_onnx: bool = field(default=False)

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's."""
        return not self.environment

    @property
    def pools_both_ways(self) -> bool:
        """Whether it pools a document by [CLS] where the model asks for that."""
        return self.is_ours or self.name == CARD

    def python(self, environments: Path) -> Path:
        """Return the Python that runs it."""
        if self.is_ours:
            return Path(sys.executable)
        return environments / self.environment / "bin/python"

    def command(
        self, model: BenchmarkModel, environments: Path, threads: int, *, for_documents: bool
    ) -> list[str]:
        """Return what starts its process; ours has one for queries and one for documents."""
        python = str(self.python(environments))
        if self.is_ours:
            worker = [python, "-m", "benchmarks.encoder_peers.ours", self.engine, self.dtype]
            texts = "documents" if for_documents else "queries"
            return [*worker, str(model.ours), str(threads), texts]
        sizes = [str(threads), str(model.max_tokens)]
        return [python, str(_WORKER), self.name, str(model.peers), *sizes]

    def problem(self, model: BenchmarkModel, environments: Path) -> str | None:
        """Return why it cannot take part, or None."""
        if not self.python(environments).exists():
            return f"{self.python(environments)} is not there: make bench-peers"
        return model.onnx_problem if self.needs_onnx else None


_ALL = (
    System("twofold-openvino-bfloat16", "twofold", "openvino", "bfloat16"),
    System("twofold-openvino-float32", "twofold", "openvino", "float32"),
    System("twofold-openvino-int8", "twofold", "openvino", "int8"),
    System("twofold-torch-bfloat16", "twofold", "torch", "bfloat16"),
    System("twofold-torch-float32", "twofold", "torch", "float32"),
    System(CARD, "model card", "torch", "float32", _ST),
    System(f"{_ST}-float32", _ST, "torch", "float32", _ST),
    System(f"{_ST}-bfloat16", _ST, "torch", "bfloat16", _ST),
    System(f"{_ST}-onnx", _ST, "onnx", "float32", f"{_ST}-onnx", needs_onnx=True),
    System(f"{_ST}-openvino", _ST, "openvino", "default", f"{_ST}-openvino"),
    System("infinity-torch", _INFINITY, "torch", "float32", _INFINITY),
    System("infinity-onnx", _INFINITY, "onnx", "float32", f"{_INFINITY}-onnx", needs_onnx=True),
    System("fastembed", "fastembed", "onnx", "float32", "fastembed", needs_onnx=True),
)


def all_systems(only: Sequence[str] = ()) -> list[System]:
    """Return the systems, ours first, the reference always among them.

    Args:
        only: Names, or beginnings of names, to keep; all without them.

    Raises:
        ValueError: One of them names no system.
    """
    for wanted in only:
        if not any(system.name.startswith(wanted) for system in _ALL):
            known = ", ".join(system.name for system in _ALL)
            raise ValueError(f"expected systems among {known}; found {wanted}")
    return [
        system
        for system in _ALL
        if not only or system.name == CARD or system.name.startswith(tuple(only))
    ]


def offline(model: BenchmarkModel, threads: int) -> Mapping[str, str]:
    """Return the variables that every process gets beside this one's."""
    return {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "DO_NOT_TRACK": "1",
        "HF_HUB_CACHE": str(model.hub_cache),
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true",
    }
