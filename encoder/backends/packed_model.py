"""A transformer whose rows hold several texts, with its pooling inside the graph.

Short texts in rows of one length need next to no padding and few shapes. What a text comes to is
what it comes to alone: its positions begin at 0, and it attends to itself only.
"""

from __future__ import annotations

import torch
from torch import nn

from encoder.backends.pooled_model import PooledModel

__all__ = ["PackedModel", "can_pack"]

_PACKABLE = {"bert"}
"""`config.model_type` of architectures that take positions and any mask from outside."""


def can_pack(model: PooledModel) -> bool:
    """Return whether a model's architecture lets several texts share a row."""
    return getattr(model.transformer.config, "model_type", None) in _PACKABLE


class PackedModel(nn.Module):
    """Token ids of several texts a row in, one vector per text out, in float32.

    Args:
        model: Whose transformer is used.
    """

    def __init__(self, model: PooledModel) -> None:
        super().__init__()
        self.transformer = model.transformer

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        text_ids: torch.Tensor,
        starts: torch.Tensor,
        is_cls: torch.Tensor,
    ) -> torch.Tensor:
        """Return the pooled vectors, float32 (S, H).

        Args:
            input_ids: int (R, T).
            position_ids: int (R, T).
            text_ids: From 1, 0 for padding, int (R, T).
            starts: Of each text's first token in the rows laid end to end, int (S,).
            is_cls: bool (S,).
        """
        same_text = text_ids[:, None, :, None] == text_ids[:, None, None, :]  # (R, 1, T, T)
        output = self.transformer(
            input_ids=input_ids, position_ids=position_ids.long(), attention_mask=same_text
        )
        hidden = output.last_hidden_state.float().flatten(0, 1)  # (R * T, H)
        text_of = text_ids.flatten()  # (R * T,)
        first = starts.long()
        is_of = (text_of[first][:, None] == text_of[None, :]).float()  # (S, R * T)
        mean = is_of @ hidden / is_of.sum(dim=1, keepdim=True)  # (S, H)
        return torch.where(is_cls.unsqueeze(-1), hidden[first], mean)  # (S, H)
