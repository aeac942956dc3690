"""A graph file opened in OpenVINO on the CPU, in float32: ONNX or OpenVINO's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from encoder.backends.openvino_conversion import import_openvino
from encoder.errors import ModelLoadError, one_line
from encoder.export.fidelity import Vectors
from encoder.export.pooled_graph import INPUT_NAMES, OUTPUT_NAMES, RunGraph

__all__ = ["open_openvino_graph"]


def open_openvino_graph(path: Path, purpose: str) -> tuple[RunGraph, str]:
    """Return what runs the graph, and the runtime's name and version.

    Args:
        path: `.onnx` or `.xml`.
        purpose: What needs OpenVINO, as an error names it.

    Raises:
        ModelLoadError: OpenVINO is not installed, or cannot read the file.
    """
    openvino = import_openvino(purpose, "export another format")
    try:
        compiled = openvino.Core().compile_model(
            str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
    except RuntimeError as error:
        raise ModelLoadError(
            f"expected a graph that OpenVINO runs in {path.name}, found: {one_line(error)[-300:]}"
        ) from error

    def run(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> list[Vectors]:
        found = compiled(dict(zip(INPUT_NAMES, (ids, mask), strict=True)))
        return [found[name] for name in OUTPUT_NAMES]

    return run, f"openvino {openvino.__version__}"
