"""A model as OpenVINO holds it before it is compiled: its graph, and what a backend must know.

It comes from a PyTorch model, converted in memory (`convert_pooled_model`, `convert_packed_model`),
or from the files that `twofold quantize` wrote (`encoder.backends.int8_graph`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from encoder.backends.base import PackedBatch
from encoder.backends.openvino_conversion import convert, import_openvino
from encoder.backends.openvino_graph import openvino_cause
from encoder.backends.packed_model import PackedModel
from encoder.backends.pooled_model import PooledModel
from encoder.errors import ModelLoadError

__all__ = ["ConvertedModel", "convert_packed_model", "convert_pooled_model", "not_convertible"]


@dataclass(frozen=True)
class ConvertedModel:
    """A graph of input_ids, attention_mask int32 (B, T) and is_cls bool (B,) to float32 (B, H).

    Attributes:
        graph: An `openvino.Model` of any B and T.
        dimension: Hidden size H.
        pad_token_id: What the model expects in padding.
        n_weights: Numbers in its weights.
        is_int8: Whether it was quantized.
    """

    graph: Any
    dimension: int
    pad_token_id: int
    n_weights: int
    is_int8: bool = False


def convert_pooled_model(model: PooledModel) -> ConvertedModel:
    """Convert a PyTorch model in float32; it is not needed afterwards.

    Raises:
        ModelLoadError: OpenVINO is not installed, or cannot convert the model.
    """
    openvino = import_openvino("backend openvino", "use backend torch")
    ids = torch.ones((2, 8), dtype=torch.int32)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    try:
        graph = convert(openvino, model, (ids, mask, torch.tensor([True, False])))
    except RuntimeError as error:
        raise not_convertible(error) from error
    n_weights = sum(weight.numel() for weight in model.parameters())
    return ConvertedModel(graph, model.dimension, model.pad_token_id, n_weights)


def convert_packed_model(model: PooledModel) -> Any:  # noqa: ANN401 - OpenVINO has no types
    """Convert a PyTorch model to a graph of what `PackedBatch.arrays` gives, to float32 (S, H).

    Raises:
        ModelLoadError: OpenVINO is not installed, or cannot convert the model.
    """
    openvino = import_openvino("backend openvino", "use backend torch")
    texts = [np.arange(1, 4, dtype=np.int32)] * 2
    example = PackedBatch.pack(
        [texts, texts[:1]],
        np.array([True, False, True]),
        row_tokens=8,
        max_texts=2,
        pad_token_id=model.pad_token_id,
    )
    arrays = tuple(torch.from_numpy(array) for array in example.arrays)
    try:
        return convert(openvino, PackedModel(model).eval(), arrays)
    except RuntimeError as error:
        raise not_convertible(error) from error


def not_convertible(error: RuntimeError | ValueError) -> ModelLoadError:
    """Return what a user is told of a model that OpenVINO cannot convert or compile."""
    return ModelLoadError(
        f"expected a model that OpenVINO can convert, found: {openvino_cause(error)}; "
        "use backend torch"
    )
