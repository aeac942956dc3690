"""`model.onnx`: the graph of both poolings, for ONNX Runtime and whatever else reads ONNX.

Written by torch.export, checked in ONNX Runtime where it is installed, else in OpenVINO.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from encoder.backends.pooled_model import quiet_transformers
from encoder.errors import ModelLoadError, one_line
from encoder.export.fidelity import Fidelity, require_fidelity
from encoder.export.openvino_runtime import open_openvino_graph
from encoder.export.pooled_graph import (
    INPUT_NAMES,
    OUTPUT_NAMES,
    PooledGraph,
    RunGraph,
    compare_graph,
    example_input,
    graph_metadata,
    load_pooled_graph,
)
from encoder.export.usage import graph_usage
from encoder.extras import import_extra
from encoder.model.description import ModelDescription

__all__ = ["OnnxFormat"]

_FILE = "model.onnx"
_LARGE_BYTES = 1_500_000_000
"""A protobuf ends at 2 GB: the weights of a larger model stand in a file of their own."""


class OnnxFormat:
    """One ONNX graph with the outputs `cls` and `mean`."""

    name = "ONNX"
    keeps_weights = False

    def write(self, model: ModelDescription, folder: Path) -> Fidelity | None:
        """Write `model.onnx` and compare it with the model; see `ExportFormat.write`."""
        import_extra("export", "onnx")
        import_extra("export", "onnxscript")
        graph = load_pooled_graph(model)
        path = folder / _FILE
        size = sum(weights.stat().st_size for weights in model.files.weights)
        _write_graph(graph, path, graph_metadata(model.space), is_large=size > _LARGE_BYTES)
        opened = _open_graph(path)
        if opened is None:
            return None
        run, runtime = opened
        return require_fidelity(_FILE, compare_graph(run, graph, model, runtime))

    def usage(self, model: ModelDescription) -> str:
        """Return how the graph is used, in Markdown."""
        return graph_usage(
            model,
            file=_FILE,
            imports="import onnxruntime",
            opening=f'session = onnxruntime.InferenceSession("{_FILE}")',
            running='(vectors,) = session.run([space[role]["pooling"]], inputs)',
        )


def _write_graph(
    graph: PooledGraph, path: Path, metadata: dict[str, str], *, is_large: bool
) -> None:
    axes = {0: "batch", 1: "length"}
    try:
        with torch.inference_mode(), quiet_transformers(), _quiet_exporter():
            program = torch.onnx.export(
                graph,
                example_input(),
                input_names=INPUT_NAMES,
                output_names=OUTPUT_NAMES,
                dynamic_shapes=(axes, axes),
                dynamo=True,
                verbose=False,
            )
            if program is None:
                raise RuntimeError("the exporter returned nothing")
            program.model.metadata_props.update(metadata)
            program.save(path, external_data=is_large)
    except Exception as error:
        # The exporter raises classes of many packages; all of them mean: no graph.
        raise ModelLoadError(
            f"expected a model that torch.onnx can export, found: {one_line(error)[:300]}; "
            "export sentence-transformers instead"
        ) from error


def _open_graph(path: Path) -> tuple[RunGraph, str] | None:
    """Return what runs the graph and its name, or None where no runtime is installed."""
    if find_spec("onnxruntime") is not None:
        runtime = import_extra("export", "onnxruntime")
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return (
            lambda ids, mask: session.run(
                list(OUTPUT_NAMES), dict(zip(INPUT_NAMES, (ids, mask), strict=True))
            ),
            f"onnxruntime {runtime.__version__}",
        )
    if find_spec("openvino") is not None:
        return open_openvino_graph(path, "checking the graph")
    return None


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's notes on torchvision, renamed axes and its own internals to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # What a warning could mean for the vectors is compared afterwards.
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
