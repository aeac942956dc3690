"""The model card's own code: the reference that `verify` and the parity tests compare with.

`get_embedding` is the card of avsolatorio/NoInstruct-small-Embedding-v0, with its model and
tokenizer passed in. Nothing of twofold's batching, backends or tokenization is used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encoder.errors import InvalidInputError
from encoder.space import EmbeddingSpace, Pooling, Role

__all__ = ["ModelCard", "get_embedding", "load_model_card"]

_BATCH_SIZE = 16
_MODES = {Pooling.MEAN: "query", Pooling.CLS: "sentence"}


@dataclass(frozen=True)
class ModelCard:
    """A model as its card loads it.

    Attributes:
        model: The transformer in float32 on the CPU.
        tokenizer: Hugging Face's tokenizer, cutting at the space's `max_seq_length`.
    """

    model: Any
    tokenizer: Any

    def embed(
        self, texts: Sequence[str], space: EmbeddingSpace, role: Role
    ) -> npt.NDArray[np.float32]:
        """Return what the card's code gives for texts of a role, float32 (N, D).

        The space's prompt, pooling, `truncate_dim` and normalization are applied, so that the
        result is comparable with `Encoder.encode` for any model.
        """
        encoding = space.role(role)
        prompted = [encoding.prompt + text for text in texts]
        # Batches of similar length: what padding a row gets does not change its vector.
        order = sorted(range(len(prompted)), key=lambda index: len(prompted[index]))
        vectors = np.zeros((len(prompted), space.dimension), dtype=np.float32)
        for first in range(0, len(order), _BATCH_SIZE):
            rows = order[first : first + _BATCH_SIZE]
            batch = get_embedding(
                self.model,
                self.tokenizer,
                [prompted[row] for row in rows],
                _MODES[encoding.pooling],
            )
            vectors[rows] = batch[:, : space.truncate_dim]
        if space.normalize:
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def load_model_card(folder: Path, max_seq_length: int) -> ModelCard:
    """Load a model folder as the card does: AutoModel and AutoTokenizer, in float32.

    Args:
        folder: The model's local folder.
        max_seq_length: Where texts are cut, special tokens included.

    Raises:
        ModelLoadError: The folder is not a model that transformers knows, or lacks weights.
    """
    from transformers import AutoTokenizer

    from encoder.backends.pooled_model import load_pooled_model

    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, model_max_length=max_seq_length
    )
    return ModelCard(load_pooled_model(folder).transformer, tokenizer)


def get_embedding(
    model: Any,  # noqa: ANN401 - the card's names; transformers' classes differ by model
    tokenizer: Any,  # noqa: ANN401
    texts: str | list[str],
    mode: str = "sentence",
) -> npt.NDArray[np.float32]:
    """Return the card's embedding of texts, float32 (N, H), not normalized.

    Args:
        model: A transformer.
        tokenizer: Its Hugging Face tokenizer.
        texts: One text or several.
        mode: "query" (mean of the tokens) or "sentence" (the [CLS] token).

    Raises:
        InvalidInputError: The mode is neither.
    """
    import torch

    if mode not in ("query", "sentence"):
        raise InvalidInputError(f"expected mode 'query' or 'sentence', found {mode!r}")
    if isinstance(texts, str):
        texts = [texts]
    inp = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        output = model(**inp)
    if mode == "query":
        vectors = output.last_hidden_state * inp["attention_mask"].unsqueeze(2)  # (B, T, H)
        vectors = vectors.sum(dim=1) / inp["attention_mask"].sum(dim=-1).view(-1, 1)  # (B, H)
    else:
        vectors = output.last_hidden_state[:, 0, :]  # (B, H)
    result: npt.NDArray[np.float32] = vectors.float().numpy()
    return result
