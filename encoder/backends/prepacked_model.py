"""A model whose weights lie in memory in the order in which oneDNN multiplies them on a CPU.

PyTorch brings a bfloat16 weight into that order again at every call, which for a lone query costs
more than the product; float32 it leaves to MKL, which takes twice as long as oneDNN on an AMD CPU.
The operators used here are those that torch.compile puts in place of `nn.Linear` when it freezes a
model. They are not public, so what comes of them is proved at every load. BERT's layers are written
out besides: one product for queries, keys and values, activations and sums in the products.
"""

from __future__ import annotations

import copy
import logging
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutput

from encoder.backends.cls_only import ClsOnly
from encoder.backends.fidelity import (
    MIN_EXACT_COSINE,
    MIN_REDUCED_COSINE,
    lowest_cosine,
    proof_batches,
)
from encoder.backends.pooled_model import PooledModel
from encoder.errors import one_line

__all__ = ["prepack"]

_ROWS = 16
"""Of the input, for which oneDNN chooses the order. With 16 a product of 1 to 4,096 rows is as fast
as with the best of 1, 16, 512 and none; in float32 12 rows take 4-17% longer with none, twice as
long with 1."""
_LEAST_COSINE = {torch.float32: MIN_EXACT_COSINE, torch.bfloat16: MIN_REDUCED_COSINE}

_logger = logging.getLogger(__name__)


def prepack(model: PooledModel) -> None:
    """Give a model a transformer that does the same faster, where this PyTorch and this CPU can.

    Until it has proved to do the same, both are in memory.

    Args:
        model: On the CPU, for inference. In float32 or bfloat16, or it is left as it is.
    """
    least = _LEAST_COSINE.get(next(model.parameters()).dtype)
    if least is None:
        return
    try:
        expected = _proof_vectors(model)
        prepacked = _prepacked(model)
        lowest = lowest_cosine(_proof_vectors(prepacked), expected)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        _logger.info("weights cannot be prepacked: %s", one_line(error))
        return
    if lowest < least:
        _logger.warning("prepacked weights give other vectors (cosine %.5f): not used", lowest)
        return
    model.transformer, model.cls_only = prepacked.transformer, prepacked.cls_only


@torch.inference_mode()
def _proof_vectors(model: PooledModel) -> npt.NDArray[np.float32]:
    found = []
    for batch in proof_batches(model.pad_token_id):
        ids, mask, is_cls = (torch.from_numpy(array) for array in batch.arrays)
        vectors = model(
            ids.long(),
            mask.long(),
            is_cls,
            has_padding=batch.has_padding,
            all_cls=batch.all_cls,
        )
        found.append(vectors.numpy())
    return np.concatenate(found)


@torch.no_grad()
def _prepacked(model: PooledModel) -> PooledModel:
    """Return what does the same; everything but the packed weights is shared."""
    if _is_plain_bert(model.transformer):
        bert = _Bert(model.transformer)
        return PooledModel(bert, model.dimension, model.pad_token_id, _BertClsOnly(bert))
    transformer = _with_packed_linears(model.transformer)
    cls_only = None if model.cls_only is None else ClsOnly(transformer)
    return PooledModel(transformer, model.dimension, model.pad_token_id, cls_only)


def _with_packed_linears(transformer: nn.Module) -> nn.Module:
    replaced: dict[int, Any] = {
        id(tensor): tensor for tensor in chain(transformer.parameters(), transformer.buffers())
    }
    for module in transformer.modules():
        # A subclass may do more than multiply.
        if type(module) is nn.Linear:
            replaced[id(module)] = _Linear([module])
    return copy.deepcopy(transformer, replaced)


def _is_plain_bert(transformer: Any) -> bool:  # noqa: ANN401 - transformers' models have no common type
    config = transformer.config
    return (
        config.model_type == "bert"
        and config.hidden_act == "gelu"
        and not config.is_decoder
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
    )


class _Linear(nn.Module):
    """Linear layers of one input, side by side.

    Args:
        linears: With I inputs and O outputs altogether.
    """

    def __init__(self, linears: list[nn.Linear]) -> None:
        super().__init__()
        weights = [linear.weight.detach() for linear in linears]
        # A copy less of each weight leaves up to 70 MB less of holes in the heap of a BERT base.
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases) if biases else None

    def forward(self, inputs: torch.Tensor, activation: str = "none") -> torch.Tensor:
        """Return (..., O) for (..., I)."""
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self.weight, self.bias, activation, [], "none"
        )
        return outputs

    def plus(self, inputs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return (..., O) for (..., I), plus others (..., O)."""
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            inputs, others, self.weight, self.bias, "add"
        )
        return outputs


class _Layer:
    """One of BERT's layers.

    Args:
        layer: A BertLayer.
        heads: Of its attention.
    """

    def __init__(self, layer: Any, heads: int) -> None:  # noqa: ANN401 - as above
        attention = layer.attention
        self._heads = heads
        self._to_attend = _Linear([attention.self.query, attention.self.key, attention.self.value])
        self._attended = _Linear([attention.output.dense])
        self._after_attention = attention.output.LayerNorm
        self._widen = _Linear([layer.intermediate.dense])
        self._narrow = _Linear([layer.output.dense])
        self._after = layer.output.LayerNorm

    def __call__(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, first: int | None = None
    ) -> torch.Tensor:
        """Return (B, T, H) for (B, T, H), or (B, first, H): of so many tokens only."""
        rows, length, size = hidden.shape
        queries, keys, values = (
            self._to_attend.forward(hidden)
            .view(rows, length, 3, self._heads, size // self._heads)
            .permute(2, 0, 3, 1, 4)
            .unbind()
        )
        hidden, queries = hidden[:, :first].contiguous(), queries[:, :, :first]
        attended = functional.scaled_dot_product_attention(queries, keys, values, mask)
        attended = attended.transpose(1, 2).reshape(hidden.shape)
        hidden = _normalized(self._attended.plus(attended, hidden), self._after_attention)
        wide = self._widen.forward(hidden, "gelu")
        return _normalized(self._narrow.plus(wide, hidden), self._after)


class _Bert(nn.Module):
    """BERT's encoder, without what only training and decoders need."""

    def __init__(self, bert: Any) -> None:  # noqa: ANN401 - as above
        super().__init__()
        self._embeddings = bert.embeddings
        heads = bert.config.num_attention_heads
        self._layers = [_Layer(layer, heads) for layer in bert.encoder.layer]

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutput:
        """Return the hidden states (B, T, H) of int64 (B, T)."""
        return BaseModelOutput(last_hidden_state=self.hidden(input_ids, attention_mask))

    def hidden(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        first: int | None = None,
    ) -> torch.Tensor:
        """Return the hidden states (B, T, H) of int64 (B, T), or of so many tokens only."""
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        hidden: torch.Tensor = self._embeddings(input_ids=input_ids)
        for layer in self._layers[:-1]:
            hidden = layer(hidden, mask)
        return self._layers[-1](hidden, mask, first)


class _BertClsOnly(nn.Module):
    """As `encoder.backends.cls_only.ClsOnly`.

    Queries are computed of all tokens: one product gives them with the keys and values.
    """

    def __init__(self, bert: _Bert) -> None:
        super().__init__()
        self._bert = bert

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the first token's last hidden state (B, H)."""
        return self._bert.hidden(input_ids, attention_mask, first=1)[:, 0]


def _normalized(hidden: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    return torch.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
