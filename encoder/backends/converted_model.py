"""A model as OpenVINO holds it before it is compiled: its graph, and what a backend must know.

It comes from a PyTorch model, converted in memory (`convert_pooled_model`, `convert_packed_model`),
or from the files that `twofold quantize` wrote (`encoder.backends.int8_graph`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from encoder.backends.base import PackedBatch
from encoder.backends.cls_only import ClsOnly
from encoder.backends.openvino_conversion import convert, import_openvino
from encoder.backends.openvino_graph import openvino_cause
from encoder.backends.packed_model import PackedModel
from encoder.backends.pooled_model import PooledModel, pool
from encoder.errors import ModelLoadError

__all__ = ["ConvertedModel", "convert_packed_model", "convert_pooled_model", "not_convertible"]


@dataclass(frozen=True)
class ConvertedModel:
    """A graph of input_ids, attention_mask int32 (B, T) and is_cls bool (B,) to float32 (B, H).

    Attributes:
        graph: An `openvino.Model` of any B and T. Its first output is pooled as `is_cls` says; its
            second one, if it has two, is pooled by [CLS] and needs less of the last layer.
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

    @property
    def pooled(self) -> Any:  # noqa: ANN401 - OpenVINO has no types
        """What computes the first output alone."""
        return self._computing(0)

    @property
    def cls_only(self) -> Any:  # noqa: ANN401 - as above
        """What computes the second output alone, or None."""
        return self._computing(1) if len(self.graph.outputs) > 1 else None

    def _computing(self, output: int) -> Any:  # noqa: ANN401 - as above
        openvino = import_openvino("backend openvino", "use backend torch")
        return openvino.Model([self.graph.output(output)], self.graph.get_parameters())


class _BothOutputs(nn.Module):
    """A model's vectors pooled as asked, and pooled by [CLS]; all layers but the last are shared.

    Args:
        cls_only: The model's.
    """

    def __init__(self, cls_only: ClsOnly) -> None:
        super().__init__()
        self.cls_only = cls_only

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, is_cls: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both vectors, float32 (B, H); arguments as `PooledModel.forward`."""
        hidden = self.cls_only.before_last(input_ids, attention_mask)  # (B, T, H)
        last = self.cls_only.last_of_all(hidden, attention_mask)  # (B, T, H)
        first = self.cls_only.last_of_first(hidden, attention_mask)  # (B, H)
        return pool(last, attention_mask, is_cls), first


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
        cls_only = model.cls_only
        module = _BothOutputs(cls_only).eval() if isinstance(cls_only, ClsOnly) else model
        graph = convert(openvino, module, (ids, mask, torch.tensor([True, False])))
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
