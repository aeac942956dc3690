"""`openvino_model.xml` and `.bin`: the graph of both poolings, in OpenVINO's own files.

The weights stay float32: OpenVINO would store them in float16 unless told otherwise.
"""

from __future__ import annotations

from pathlib import Path

from encoder.backends.openvino_conversion import convert, import_openvino
from encoder.errors import ModelLoadError, one_line
from encoder.export.fidelity import Fidelity, require_fidelity
from encoder.export.openvino_runtime import open_openvino_graph
from encoder.export.pooled_graph import (
    OUTPUT_NAMES,
    PooledGraph,
    compare_graph,
    example_input,
    graph_metadata,
    load_pooled_graph,
)
from encoder.export.usage import graph_usage
from encoder.model.description import ModelDescription

__all__ = ["OpenVinoFormat"]

_FILE = "openvino_model.xml"
_PURPOSE = "export openvino"


class OpenVinoFormat:
    """One OpenVINO graph with the outputs `cls` and `mean`."""

    name = "OpenVINO"
    keeps_weights = False

    def write(self, model: ModelDescription, folder: Path) -> Fidelity | None:
        """Write the graph's two files and compare it with the model; see `ExportFormat.write`."""
        import_openvino(_PURPOSE, "export another format")
        graph = load_pooled_graph(model)
        path = folder / _FILE
        _write_graph(graph, path, graph_metadata(model.space))
        run, runtime = open_openvino_graph(path, _PURPOSE)
        return require_fidelity(_FILE, compare_graph(run, graph, model, runtime))

    def usage(self, model: ModelDescription) -> str:
        """Return how the graph is used, in Markdown."""
        return graph_usage(
            model,
            file=_FILE,
            imports="import openvino",
            opening="# Without the hint, a CPU that has bfloat16 computes in it.\n"
            'precision = {"INFERENCE_PRECISION_HINT": "f32"}\n'
            f'graph = openvino.compile_model("{_FILE}", "CPU", precision)',
            running='vectors = graph(inputs)[space[role]["pooling"]]',
        )


def _write_graph(graph: PooledGraph, path: Path, metadata: dict[str, str]) -> None:
    openvino = import_openvino(_PURPOSE, "export another format")
    try:
        converted = convert(openvino, graph, example_input())
        for output, name in zip(converted.outputs, OUTPUT_NAMES, strict=True):
            output.get_tensor().set_names({name})
        for name, value in metadata.items():
            converted.set_rt_info(value, ["twofold", name])
        openvino.save_model(converted, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise ModelLoadError(
            f"expected a model that OpenVINO can convert, found: {one_line(error)[-300:]}; "
            "export sentence-transformers instead"
        ) from error
