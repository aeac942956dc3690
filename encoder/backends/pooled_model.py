"""A transformer with its pooling inside the graph, loaded from a local folder.

The weights come from safetensors only, no code of the model's folder runs, and a checkpoint that
lacks weights is refused instead of being filled with random ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from encoder.backends.cls_only import cls_only_of
from encoder.backends.fidelity import MIN_EXACT_COSINE, lowest_cosine, proof_ids
from encoder.backends.local_attention import let_padding_see
from encoder.errors import ModelLoadError, one_line

__all__ = ["PooledModel", "load_pooled_model", "mean_of", "pool", "quiet_transformers"]


class PooledModel(nn.Module):
    """Token ids in, one vector per row out; each row is pooled its own way, in float32.

    Args:
        transformer: A model whose output has `last_hidden_state` (B, T, H).
        dimension: Hidden size H.
        pad_token_id: What the model expects in padding.
        cls_only: A shorter way to the first token's hidden state (B, H), of ids and mask; None
            where there is none.
    """

    def __init__(
        self,
        transformer: nn.Module,
        dimension: int,
        pad_token_id: int,
        cls_only: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.cls_only = cls_only
        self.dimension = dimension
        self.pad_token_id = pad_token_id

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        is_cls: torch.Tensor,
        has_padding: bool = True,
        all_cls: bool = False,
    ) -> torch.Tensor:
        """Return the pooled vectors, float32 (B, H).

        Args:
            input_ids: int64 (B, T).
            attention_mask: int64 (B, T).
            is_cls: bool (B,).
            has_padding: Whether attention must be masked; without a mask it is faster.
            all_cls: Whether `is_cls` is true of every row: then less may be computed.
        """
        mask = attention_mask if has_padding else None
        if all_cls and self.cls_only is not None:
            first: torch.Tensor = self.cls_only(input_ids, mask)
            return first.float()
        output = self.transformer(input_ids=input_ids, attention_mask=mask)
        return pool(output.last_hidden_state, attention_mask, is_cls)


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, is_cls: torch.Tensor) -> torch.Tensor:
    """Return one vector per row, float32 (B, H): that of [CLS], or the mean of its tokens.

    Args:
        hidden: Of the last layer (B, T, H).
        attention_mask: int (B, T).
        is_cls: bool (B,).
    """
    hidden = hidden.float()
    mean = mean_of(hidden, attention_mask)  # (B, H)
    return torch.where(is_cls.unsqueeze(-1), hidden[:, 0], mean)  # (B, H)


def mean_of(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of each row's tokens, float32 (B, H).

    Args:
        hidden: float32 (B, T, H).
        attention_mask: int (B, T).
    """
    kept = attention_mask.unsqueeze(-1).float()  # (B, T, 1)
    return (hidden * kept).sum(dim=1) / kept.sum(dim=1)


def load_pooled_model(folder: Path) -> PooledModel:
    """Load a model's weights in float32, for inference on the CPU.

    Args:
        folder: Holds config.json and safetensors.

    Raises:
        ModelLoadError: The folder is not a model that transformers knows, lacks weights, has
            weights of the transformer for which transformers has no place, or gives a text another
            vector where padding stands beside it.
    """
    transformer, missing, unused = _load(folder)
    unused = {name for name in unused if _is_of_transformer(name, transformer)}
    if unused:
        raise ModelLoadError(
            f"expected a place for every weight of the transformer in {folder}, found "
            f"{len(unused)} without ({', '.join(sorted(unused)[:3])}, ...): vectors would be "
            "computed without them; config.json is of another architecture (layers, "
            "position_embedding_type, ...), or this version of transformers does not have it"
        )
    if missing:
        raise ModelLoadError(
            f"expected every weight of the model in {folder}, found {len(missing)} missing "
            f"({', '.join(sorted(missing)[:3])}, ...); the weights belong to another architecture "
            "than config.json, download the model again"
        )
    config = transformer.config
    pad_token_id = getattr(config, "pad_token_id", None) or 0
    let_padding_see(transformer)
    cls_only = cls_only_of(transformer.eval(), pad_token_id)
    model = PooledModel(transformer, int(config.hidden_size), pad_token_id, cls_only).eval()
    _check_padding(model, folder)
    return model


_PROOF_TOKENS = 12
_PROOF_PADDING = 8


@torch.inference_mode()
def _check_padding(model: PooledModel, folder: Path) -> None:
    """Refuse a model whose texts see the padding beside them, which is their neighbours' doing.

    Convolutions (ConvBERT), mixing without a mask (FNet) and approximated attention
    (Nystromformer, YOSO) do.
    """
    ids = torch.from_numpy(proof_ids(_PROOF_TOKENS)).long().repeat(2, 1)  # (2, T)
    is_cls = torch.tensor([True, False])
    mask = torch.ones_like(ids)
    beside = nn.functional.pad(mask, (0, _PROOF_PADDING))
    padded = nn.functional.pad(ids, (0, _PROOF_PADDING), value=model.pad_token_id)
    try:
        alone = model(ids, mask, is_cls, has_padding=False)  # (2, H)
        lowest = lowest_cosine(model(padded, beside, is_cls).numpy(), alone.numpy())
    except (IndexError, RuntimeError) as error:
        raise ModelLoadError(
            f"expected {folder} to compute {_PROOF_TOKENS} tokens and {_PROOF_PADDING} of padding, "
            f"found {one_line(error)}; use a model with more positions or token ids"
        ) from error
    if lowest < MIN_EXACT_COSINE:
        kind = getattr(model.transformer.config, "model_type", None)
        raise ModelLoadError(
            f"expected a text's vector to be the same with padding beside it in {folder}, found "
            f"cosine {lowest:.5f} (model_type {kind}): it would "
            "depend on the texts that it is encoded with; use another model"
        )


_COUNTED = ("position_ids", "token_type_ids", "inv_freq", ".attention.bias", ".masked_bias")
"""Positions, types, frequencies, causal masks."""


def _is_of_transformer(name: str, transformer: nn.Module) -> bool:
    """Whether a checkpoint's weight belongs to a part of the model that is used.

    Heads for other tasks do not, nor do numbers that old versions saved and all can count up.
    """
    prefix = f"{getattr(transformer, 'base_model_prefix', '')}."
    first, _, _ = name.removeprefix(prefix).partition(".")
    return first in dict(transformer.named_children()) and not name.endswith(_COUNTED)


def _load(folder: Path) -> tuple[Any, set[str], set[str]]:
    """Return the transformer and the names of the weights that its files lack and that it does."""
    from transformers import AutoModel

    options: dict[str, Any] = {
        "use_safetensors": True,
        "trust_remote_code": False,
        "local_files_only": True,
        "dtype": torch.float32,
        "output_loading_info": True,
        # A configuration may ask for tuples.
        "return_dict": True,
    }
    try:
        with quiet_transformers():
            try:
                model, info = AutoModel.from_pretrained(folder, add_pooling_layer=False, **options)
            except TypeError as error:
                # Only the BERT family has a pooling layer to leave out.
                if "add_pooling_layer" not in str(error):
                    raise
                model, info = AutoModel.from_pretrained(folder, **options)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelLoadError(
            f"expected a transformers model with safetensors in {folder}, found: {reason[0]}; "
            "remote code and pickled weights are never loaded"
        ) from error
    return model, set(info["missing_keys"]), set(info["unexpected_keys"])


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep progress bars, reports of unused weights and hints out of a job's output."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
