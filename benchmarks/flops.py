"""What a BERT's forward costs, counted from its config.json as `twofold plan` counts it.

A product of (M, K) and (K, N) counts 2 x M x K x N. Embeddings, norms, GELU, softmax and pooling
are left out: they are no products, and take their time, not the multipliers'.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.capacity.fleet import flop_per_token

__all__ = ["ModelShape"]


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a BERT that its cost depends on.

    Attributes:
        layers: Of the encoder.
        hidden: H, the size of a token's vector.
        intermediate: I, the size in the middle of the feed-forward part.
        heads: Of the attention; they do not change the count.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> ModelShape:
        """Read the sizes from a model's config.json.

        Raises:
            ValueError: It lacks one of them.
        """
        names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
        missing = [name for name in names if name not in config]
        if missing:
            raise ValueError(
                f"expected a BERT's config.json, found none of {', '.join(missing)}; the cost of "
                "other architectures is not counted here"
            )
        return cls(*(int(config[name]) for name in names))

    @property
    def products(self) -> list[tuple[int, int]]:
        """The weights (K, N) of one layer: query, key, value, output, up and down."""
        hidden, middle = self.hidden, self.intermediate
        return [(hidden, hidden)] * 4 + [(hidden, middle), (middle, hidden)]

    @property
    def linear_flops_per_token(self) -> int:
        """Of all layers' weights: what a token costs however long its text is."""
        return self._flops_per_token(0)

    def flops(self, lengths: Iterable[int]) -> int:
        """Count the forward of texts, without padding.

        Args:
            lengths: Tokens of each text; a text's attention costs the square of its own.
        """
        return sum(length * self._flops_per_token(length) for length in lengths)

    def _flops_per_token(self, length: int) -> int:
        config = {
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate,
        }
        return int(flop_per_token(config, length))
