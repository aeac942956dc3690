"""A BERT on a GPU, over texts laid end to end: no padding, no mask, no shapes to prepare.

Attention with a mask waits for the device at every forward (transformers looks whether anything is
masked) and, by cuDNN, takes 0.1 s for every new shape of a batch. Attention over texts of any
lengths (PyTorch's `varlen_attn`) needs to know only where each begins. BERT's layers are written
out; what comes of them is proved at every load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from encoder.backends.base import TokenBatch
from encoder.backends.cls_only import BERT_LIKE
from encoder.backends.fidelity import MIN_REDUCED_COSINE, lowest_cosine, proof_batches
from encoder.backends.pooled_model import PooledModel
from encoder.errors import one_line

__all__ = ["Attention", "FlatBatch", "FlatModel", "flat_model_of"]

_logger = logging.getLogger(__name__)

Attention = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, int], torch.Tensor
]
"""Of queries (N, heads, D), keys and values (M, heads, D) of texts laid end to end, where the
queries and the keys of each text begin, int32 (B + 1,) each, and the most that one has of either;
returns (N, heads, D)."""


@dataclass(frozen=True)
class FlatBatch:
    """Texts of one forward, laid end to end.

    Attributes:
        input_ids: int32 (N,).
        positions: Place of each token in its text, as the model counts, int32 (N,).
        starts: Where each text begins, and N, int32 (B + 1,).
        is_cls: True for texts pooled by [CLS], bool (B,).
        longest: Tokens of the longest text, at least.
    """

    input_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    is_cls: npt.NDArray[np.bool_]
    longest: int

    @classmethod
    def of(cls, batch: TokenBatch, uncounted: int | None = None) -> FlatBatch:
        """Leave the padding out of a batch; it stands on the right.

        Args:
            batch: Padded rows.
            uncounted: `FlatModel.uncounted`.
        """
        is_token = batch.attention_mask.astype(np.bool_)  # (B, T)
        input_ids = batch.input_ids[is_token]  # (N,)
        lengths = is_token.sum(axis=1)  # (B,)
        starts = np.zeros(len(batch) + 1, dtype=np.int32)
        np.cumsum(lengths, out=starts[1:])
        if uncounted is None:
            positions = np.arange(starts[-1], dtype=np.int32) - np.repeat(starts[:-1], lengths)
        else:
            is_counted = input_ids != uncounted
            counted = np.append(0, np.cumsum(is_counted))  # (N + 1,)
            places = counted[1:] - np.repeat(counted[starts[:-1]], lengths)
            positions = (places * is_counted + uncounted).astype(np.int32)
        return cls(input_ids, positions, starts, batch.is_cls, batch.input_ids.shape[1])

    @property
    def arrays(self) -> list[npt.NDArray[Any]]:
        """What a model takes, in this order."""
        return [self.input_ids, self.positions, self.starts, self.is_cls]


class FlatModel(nn.Module):
    """Token ids of texts laid end to end in, one vector per text out, in float32.

    Args:
        transformer: With BERT's layers. Most of its weights are shared.
        attention: Attention within each text.

    Attributes:
        uncounted: The id of padding where positions are counted from it on and padding within a
            text is not counted, as RoBERTa does; None where the first token is at position 0.
    """

    def __init__(self, transformer: Any, attention: Attention) -> None:  # noqa: ANN401 - transformers' models have no common type
        super().__init__()
        config, embeddings = transformer.config, transformer.embeddings
        self.uncounted: int | None = None
        if config.model_type != "bert":
            self.uncounted = embeddings.padding_idx
        self._words = embeddings.word_embeddings
        # Every token is of the first type.
        self._positions = nn.Parameter(
            embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0],
            requires_grad=False,
        )
        self._norm = embeddings.LayerNorm
        self._layers = nn.ModuleList(
            _Layer(layer, config.num_attention_heads, attention)
            for layer in transformer.encoder.layer
        )

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        starts: torch.Tensor,
        is_cls: torch.Tensor,
        longest: int,
        all_cls: bool = False,
    ) -> torch.Tensor:
        """Return the pooled vectors, float32 (B, H); NaN for a text without tokens.

        Args:
            input_ids: int32 (N,).
            positions: int32 (N,).
            starts: int32 (B + 1,).
            is_cls: bool (B,).
            longest: Tokens of the longest text, at least.
            all_cls: Whether `is_cls` is true of every text: then less is computed.
        """
        words = functional.embedding(input_ids, self._words.weight)
        hidden: torch.Tensor = self._norm(
            words + functional.embedding(positions, self._positions)
        )  # (N, H)
        for layer in self._layers[:-1]:
            hidden = layer(hidden, starts, longest)
        firsts = starts[:-1].clamp(max=len(input_ids) - 1)  # (B,)
        hidden = self._layers[-1](hidden, starts, longest, firsts if all_cls else None).float()
        if all_cls:
            return hidden  # (B, H)
        # Checking the lengths would wait for the device.
        mean = torch.segment_reduce(hidden, "mean", lengths=starts.diff().long(), unsafe=True)
        return torch.where(is_cls.unsqueeze(-1), hidden[firsts], mean)  # (B, H)


class _Layer(nn.Module):
    """One of BERT's layers.

    Args:
        layer: A BertLayer, or one like it.
        heads: Of its attention.
        attention: Attention within each text.
    """

    def __init__(self, layer: Any, heads: int, attention: Attention) -> None:  # noqa: ANN401 - as above
        super().__init__()
        parts = layer.attention.self
        self._heads, self._attention = heads, attention
        self._to_attend = _side_by_side([parts.query, parts.key, parts.value])
        self._attended = layer.attention.output.dense
        self._after_attention = layer.attention.output.LayerNorm
        self._widen = layer.intermediate.dense
        self._activation = layer.intermediate.intermediate_act_fn
        self._narrow = layer.output.dense
        self._after = layer.output.LayerNorm

    def forward(
        self,
        hidden: torch.Tensor,
        starts: torch.Tensor,
        longest: int,
        only: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return (N, H) for (N, H), or (B, H): of one token `only` (B,) in each text."""
        queries, keys, values = (
            self._to_attend(hidden).view(len(hidden), 3, self._heads, -1).unbind(1)
        )
        query_starts, longest_query = starts, longest
        if only is not None:
            hidden, queries = hidden[only], queries[only]
            query_starts = torch.arange(len(starts), dtype=torch.int32, device=starts.device)
            longest_query = 1
        attended = self._attention(
            queries, keys, values, query_starts, starts, longest_query, longest
        )
        hidden = self._after_attention(hidden + self._attended(attended.flatten(1)))
        wide = self._activation(self._widen(hidden))
        outputs: torch.Tensor = self._after(hidden + self._narrow(wide))
        return outputs


def _side_by_side(linears: list[nn.Linear]) -> nn.Linear:
    """Return one layer that gives the outputs of several, one after the other."""
    weight = torch.cat([linear.weight for linear in linears])
    joined = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]), requires_grad=False)
    return joined


def flat_model_of(model: PooledModel, attention: Attention | None = None) -> FlatModel | None:
    """Return a model that does the same over texts laid end to end, if there is one.

    Args:
        model: On its device and in its precision, for inference.
        attention: Attention within each text; unset: PyTorch's, on a GPU in half precision.
    """
    if not _has_plain_layers(getattr(model.transformer, "config", None)):
        return None
    try:
        flat = FlatModel(model.transformer, attention or _flash_attention()).eval()
        lowest = _lowest_cosine(flat, model)
    except torch.OutOfMemoryError as error:
        _logger.warning("memory ran out, so rows are padded: %s", one_line(error))
        return None
    except (AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        _logger.info("texts cannot be laid end to end: %s", one_line(error))
        return None
    if lowest < MIN_REDUCED_COSINE:
        _logger.warning("texts laid end to end come out otherwise (%.5f): not done", lowest)
        return None
    return flat


def _has_plain_layers(config: Any) -> bool:  # noqa: ANN401 - as above
    return (
        getattr(config, "model_type", None) in BERT_LIKE
        and not config.is_decoder
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
    )


def _flash_attention() -> Attention:
    """Return PyTorch's.

    Raises:
        ImportError: It has none yet (before 2.10).
    """
    from torch.nn.attention.varlen import varlen_attn

    def attend(
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        query_starts: torch.Tensor,
        key_starts: torch.Tensor,
        longest_query: int,
        longest_key: int,
    ) -> torch.Tensor:
        attended = varlen_attn(
            queries, keys, values, query_starts, key_starts, longest_query, longest_key
        )
        # The sum of weights is not asked for.
        return cast("torch.Tensor", attended)

    return attend


@torch.inference_mode()
def _lowest_cosine(flat: FlatModel, model: PooledModel) -> float:
    """Return how close a flat model's vectors are to the model's, of both poolings."""
    device = next(model.parameters()).device
    lowest = 1.0
    for batch in proof_batches(model.pad_token_id):
        ids, mask, is_cls = (torch.from_numpy(array).to(device) for array in batch.arrays)
        expected = model(ids.long(), mask.long(), is_cls)
        texts = FlatBatch.of(batch, flat.uncounted)
        found = flat(
            *(torch.from_numpy(array).to(device) for array in texts.arrays),
            longest=texts.longest,
            all_cls=batch.all_cls,
        )
        lowest = min(lowest, lowest_cosine(found.cpu().numpy(), expected.cpu().numpy()))
    return lowest
