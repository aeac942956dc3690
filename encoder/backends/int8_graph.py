"""A model quantized to int8, as OpenVINO's two files in the model's folder.

What they are is in the record beside them (`encoder.model.int8_record`); what quantizes is
`encoder.backends.int8_calibration`.
"""

from __future__ import annotations

from pathlib import Path

from encoder.backends.converted_model import ConvertedModel
from encoder.backends.openvino_conversion import import_openvino
from encoder.backends.openvino_graph import openvino_cause
from encoder.errors import ModelLoadError
from encoder.model.folder import INT8_GRAPH_FILE
from encoder.model.int8_record import graph_sha256, read_int8_record

__all__ = ["load_int8_model", "read_int8_graph", "save_int8_graph"]

_INSTEAD = "use dtype bfloat16, float32 or auto"


def load_int8_model(folder: Path, weights_sha256: str | None) -> ConvertedModel:
    """Read the int8 graph of a model folder.

    Args:
        folder: The model's.
        weights_sha256: Of the model's weights; None does not compare them.

    Raises:
        ModelLoadError: There is none, it is damaged, or it was made of other weights.
    """
    record = read_int8_record(folder)
    path = folder / INT8_GRAPH_FILE
    if weights_sha256 not in (None, record.weights_sha256):
        raise ModelLoadError(
            f"{path}: expected a graph made of the folder's weights {str(weights_sha256)[:16]}, "
            f"found one of {record.weights_sha256[:16]}; quantize this model again"
        )
    found = graph_sha256(folder)
    if found != record.graph_sha256:
        raise ModelLoadError(
            f"{path}: expected sha256 {record.graph_sha256[:16]} of it and its weights, found "
            f"{found[:16]}; the copy is damaged: copy it again"
        )
    return read_int8_graph(
        folder,
        dimension=record.dimension,
        pad_token_id=record.pad_token_id,
        n_weights=record.n_weights,
    )


def read_int8_graph(
    folder: Path, *, dimension: int, pad_token_id: int, n_weights: int
) -> ConvertedModel:
    """Read a graph's files, which say nothing of the model.

    Args:
        folder: Holds them.
        dimension: Hidden size H.
        pad_token_id: What the model expects in padding.
        n_weights: Numbers in its weights.

    Raises:
        ModelLoadError: OpenVINO is not installed, or cannot read them.
    """
    openvino = import_openvino("dtype int8", _INSTEAD)
    path = folder / INT8_GRAPH_FILE
    try:
        graph = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ModelLoadError(
            f"{path}: expected a graph that openvino {openvino.__version__} reads, found: "
            f"{openvino_cause(error)}; use the version that wrote it, or quantize the model again"
        ) from error
    return ConvertedModel(graph, dimension, pad_token_id, n_weights, is_int8=True)


def save_int8_graph(model: ConvertedModel, folder: Path) -> None:
    """Write the two files of a quantized model."""
    openvino = import_openvino("dtype int8", _INSTEAD)
    openvino.save_model(model.graph, folder / INT8_GRAPH_FILE, compress_to_fp16=False)
