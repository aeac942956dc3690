"""Tiny transformers of any architecture with random weights, and the vectors that they give."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from encoder.backends.base import TokenBatch
from encoder.backends.pooled_model import PooledModel

__all__ = ["HIDDEN_SIZE", "tiny_transformer", "vectors_of", "with_biases"]

HIDDEN_SIZE = 32
_SIZES = {
    "hidden_size": HIDDEN_SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 1000,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}


def tiny_transformer(kind: str, **more: object) -> nn.Module:
    """Return a model of an architecture, in float32, for inference.

    Args:
        kind: `config.model_type`.
        more: Of its configuration.
    """
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**_SIZES, **more})
    return with_biases(AutoModel.from_config(config).eval())


@torch.no_grad()
def with_biases(model: nn.Module) -> nn.Module:
    """Give a model biases: random weights come with zeros, which nobody would miss."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.2, generator=generator)
    return model


@torch.inference_mode()
def vectors_of(model: PooledModel, batch: TokenBatch, *, all_cls: bool) -> np.ndarray:
    """Return what a model gives for a batch, float32 (B, H)."""
    ids, mask, is_cls = (torch.from_numpy(array) for array in batch.arrays)
    vectors: np.ndarray = model(
        ids.long(), mask.long(), is_cls, has_padding=batch.has_padding, all_cls=all_cls
    ).numpy()
    return vectors
