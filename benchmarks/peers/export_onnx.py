"""Write a model folder's `model.onnx`, and the optimized graph where Infinity looks for it.

    .bench/peers/infinity-onnx/bin/python benchmarks/peers/export_onnx.py FOLDER CACHE

Run by that environment's Python. Infinity 0.0.78 would optimize the graph when it starts, but asks
optimum for it by an argument that optimum-onnx no longer has, and then goes on with the plain one.
So it is done here, with its settings, and found by it: "Optimized model found, skipping".
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from optimum.exporters.onnx import main_export  # type: ignore[import-not-found]
from optimum.onnxruntime import (  # type: ignore[import-not-found]
    ORTModelForFeatureExtraction,
    ORTOptimizer,
)
from optimum.onnxruntime.configuration import (  # type: ignore[import-not-found]
    OptimizationConfig,
)

# As in infinity_emb/transformer/utils_optimum.py, for a model that is called ".".
_OPTIMIZED = "infinity_onnx/CPUExecutionProvider"


def main(folder: Path, cache: Path) -> None:
    """Export with optimum as its command line does, then optimize as Infinity does."""
    with TemporaryDirectory(dir=folder.parent) as work:
        main_export(
            str(folder), output=work, task="feature-extraction", library_name="transformers"
        )
        model = ORTModelForFeatureExtraction.from_pretrained(work)
        ORTOptimizer.from_pretrained(model).optimize(
            OptimizationConfig(optimization_level=99), save_dir=str(cache / _OPTIMIZED)
        )
        (Path(work) / "model.onnx").rename(folder / "model.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
