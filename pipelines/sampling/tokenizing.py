"""An encoder that tokenizes and cannot run: what reading a sample needs of a model.

Loading the weights takes seconds and memory that counting tokens does not need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from encoder.backends.base import PackedTexts, TokenBatch
from encoder.encoder import Encoder
from encoder.errors import BackendError
from encoder.model.description import ModelDescription
from encoder.tokenizer import Tokenizer

__all__ = ["tokenizing_encoder"]


def tokenizing_encoder(model: ModelDescription) -> Encoder:
    """Return an encoder with the model's tokenizer and space, whose forward raises."""
    space = model.space
    tokenizer = Tokenizer(model.files.tokenizer, space.max_seq_length)
    return Encoder(space, tokenizer, _NoForward(space.dimension), model.provenance)


class _NoForward:
    """Stands where a backend stands."""

    name = "none"
    dtype = "float32"
    device = "none"
    pad_token_id = 0
    max_batch_tokens = 1
    overhead_tokens = 0
    streams = 1
    computes_padding = False
    packed: PackedTexts | None = None

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def forward(
        self, batches: Iterable[TokenBatch]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        raise BackendError("this encoder only tokenizes; load_encoder returns one that runs")

    def expect_short_texts(self) -> None:
        """Prepare nothing."""

    def close(self) -> None:
        """Hold nothing, so free nothing."""
