"""Models whose tokens see their neighbours only (ModernBERT): padding must see something, too.

A row of the attention mask that is false as a whole is NaN in OpenVINO, and so is each token that
attends to what came of it in a later layer, with whatever weight. Padding far from the text has
such rows. Here it sees everything instead; what a token of the text sees is as it was.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["let_padding_see"]

_NAME = "sdpa_twofold"
"""Under which transformers knows this way to attend."""


def let_padding_see(transformer: Any) -> None:  # noqa: ANN401 - transformers' models have no common type
    """Change a model's attention masks where its attention is local; leave others as they are.

    Args:
        transformer: As loaded.
    """
    is_local = "sliding_attention" in (getattr(transformer.config, "layer_types", None) or ())
    # Other ways to attend mask with numbers that are finite.
    if not is_local or transformer.config._attn_implementation != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def mask_of(*args: Any, **options: Any) -> torch.Tensor | None:  # noqa: ANN401 - as above
        mask: torch.Tensor | None = sdpa_mask(*args, **options)  # bool (B, 1, T, T)
        return None if mask is None else mask | ~mask.any(dim=-1, keepdim=True)

    AttentionInterface.register(_NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(_NAME, mask_of)
    transformer.set_attn_implementation(_NAME)
