"""A transformer whose last layer is computed for [CLS] alone, for documents.

Where every row is pooled by [CLS], nothing else of the last layer is read: its keys and values are
needed of all tokens, the rest (five sixths of its products) of one. The vectors are the same.
"""

from __future__ import annotations

import copy
import logging
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from encoder.backends.fidelity import MIN_EXACT_COSINE, PROOF_LENGTHS, lowest_cosine, proof_ids
from encoder.errors import one_line

__all__ = ["BERT_LIKE", "ClsOnly", "cls_only_of"]

BERT_LIKE = {"bert", "roberta", "xlm-roberta"}
"""`config.model_type` of those whose layers are BERT's."""

_logger = logging.getLogger(__name__)


class ClsOnly(nn.Module):
    """Computes the vector of the first token.

    Args:
        transformer: With BERT's layers. Its weights are shared.
    """

    def __init__(self, transformer: Any) -> None:  # noqa: ANN401 - transformers' models have no common type
        super().__init__()
        parts = chain(transformer.children(), transformer.encoder.children())
        shared = {id(part): part for part in parts if part is not transformer.encoder}
        self._body = copy.deepcopy(transformer, shared)
        self._body.encoder.layer = transformer.encoder.layer[:-1]
        self._last = transformer.encoder.layer[-1]
        self._heads = transformer.config.num_attention_heads

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the first token's last hidden state (B, H).

        Args:
            input_ids: int64 (B, T).
            attention_mask: int64 (B, T), or None where nothing is padded.
        """
        return self.last_of_first(self.before_last(input_ids, attention_mask), attention_mask)

    def before_last(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return what the last layer is given, (B, T, H)."""
        output = self._body(input_ids=input_ids, attention_mask=attention_mask)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def last_of_all(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the last layer's hidden states of all tokens, (B, T, H)."""
        return self._last_layer(hidden, hidden, attention_mask)

    def last_of_first(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the last layer's hidden state of the first token, (B, H)."""
        return self._last_layer(hidden[:, :1], hidden, attention_mask)[:, 0]

    def _last_layer(
        self, wanted: torch.Tensor, hidden: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the layer's outputs of those tokens that are wanted, (B, W, H) for (B, W, H)."""
        attention = self._last.attention
        queries = self._by_head(attention.self.query(wanted))  # (B, heads, W, H / heads)
        keys = self._by_head(attention.self.key(hidden))  # (B, heads, T, H / heads)
        values = self._by_head(attention.self.value(hidden))
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        attended = functional.scaled_dot_product_attention(queries, keys, values, mask)
        attended = attention.output(attended.transpose(1, 2).flatten(2), wanted)
        outputs: torch.Tensor = self._last.output(self._last.intermediate(attended), attended)
        return outputs

    def _by_head(self, projected: torch.Tensor) -> torch.Tensor:
        rows, tokens, size = projected.shape
        return projected.view(rows, tokens, self._heads, size // self._heads).transpose(1, 2)


def cls_only_of(transformer: Any, pad_token_id: int) -> ClsOnly | None:  # noqa: ANN401 - as above
    """Return the shorter way to the first token, if it leads to the same vector.

    Args:
        transformer: In float32 on the CPU, for inference.
        pad_token_id: What the model expects in padding.
    """
    if getattr(transformer.config, "model_type", None) not in BERT_LIKE:
        return None
    try:
        shorter = ClsOnly(transformer).eval()
        lowest = _lowest_cosine(shorter, transformer, pad_token_id)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        _logger.info("the last layer is computed for all tokens: %s", one_line(error))
        return None
    if lowest < MIN_EXACT_COSINE:
        _logger.warning("[CLS] alone comes out otherwise (cosine %.5f): not used", lowest)
        return None
    return shorter


@torch.inference_mode()
def _lowest_cosine(shorter: ClsOnly, transformer: nn.Module, pad_token_id: int) -> float:
    """Return how close the first token's, and all tokens', hidden states are to the model's."""
    lowest = 1.0
    for lengths in PROOF_LENGTHS:
        is_token = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]  # (B, T)
        ids = torch.where(is_token, torch.from_numpy(proof_ids(max(lengths))), pad_token_id)
        mask = None if bool(is_token.all()) else is_token.long()
        expected = transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = shorter.before_last(ids, mask)
        for found, known in (
            (shorter.last_of_first(hidden, mask), expected[:, 0]),
            (shorter.last_of_all(hidden, mask)[is_token], expected[is_token]),
        ):
            lowest = min(lowest, lowest_cosine(found.numpy(), known.numpy()))
    return lowest
