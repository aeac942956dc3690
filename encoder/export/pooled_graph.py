"""The graph that ONNX and OpenVINO files hold: token ids in, both poolings' vectors out.

    input_ids, attention_mask  int64 (B, T)  ->  cls, mean  float32 (B, D)

Any B and T. The outputs are finished as the embedding space says (`truncate_dim`, then
`normalize`), so that a user only picks the output that is named after the role's pooling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from encoder.backends.base import TokenBatch
from encoder.backends.fidelity import lowest_cosine
from encoder.backends.pooled_model import PooledModel, load_pooled_model, mean_of
from encoder.encoder import finish_vectors
from encoder.export.fidelity import Fidelity, Vectors, check_texts
from encoder.model.description import ModelDescription
from encoder.space import EmbeddingSpace, Pooling
from encoder.tokenizer import Tokenizer

__all__ = [
    "INPUT_NAMES",
    "OUTPUT_NAMES",
    "PooledGraph",
    "RunGraph",
    "compare_graph",
    "example_input",
    "graph_metadata",
    "load_pooled_graph",
]

INPUT_NAMES = ("input_ids", "attention_mask")
OUTPUT_NAMES = (Pooling.CLS.value, Pooling.MEAN.value)

_Ids = npt.NDArray[np.int64]

RunGraph = Callable[[_Ids, _Ids], Sequence[Vectors]]
"""(input_ids, attention_mask) -> the vectors of each of `OUTPUT_NAMES`."""


class PooledGraph(nn.Module):
    """A transformer whose outputs are the finished vectors of both poolings.

    Args:
        model: The model, in float32.
        space: How vectors are finished.
    """

    def __init__(self, model: PooledModel, space: EmbeddingSpace) -> None:
        super().__init__()
        self.model = model
        self.truncate_dim = space.truncate_dim
        self.normalize = space.normalize

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors of [CLS] and of the mean, each float32 (B, D).

        Args:
            input_ids: int64 (B, T).
            attention_mask: 1 for a token, 0 for padding, int64 (B, T).
        """
        output = self.model.transformer(input_ids=input_ids, attention_mask=attention_mask)
        hidden = output.last_hidden_state.float()  # (B, T, H)
        return self._finished(hidden[:, 0]), self._finished(mean_of(hidden, attention_mask))

    def _finished(self, vectors: torch.Tensor) -> torch.Tensor:
        kept = vectors[:, : self.truncate_dim]  # (B, D)
        return nn.functional.normalize(kept, dim=-1) if self.normalize else kept


def load_pooled_graph(model: ModelDescription) -> PooledGraph:
    """Load a model's weights in float32 as the graph that is exported.

    Raises:
        ModelLoadError: The weights cannot be loaded.
    """
    return PooledGraph(load_pooled_model(model.files.folder), model.space).eval()


def example_input() -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask that the graph can be traced with: two rows, one of them padded."""
    ids = torch.ones((2, 8), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return ids, mask


def graph_metadata(space: EmbeddingSpace) -> dict[str, str]:
    """Return what a graph's file says of itself, for one that lost its folder."""
    return {
        "embedding_space": space.to_json(),
        "embedding_space_fingerprint": space.fingerprint,
        "query_output": space.query.pooling.value,
        "document_output": space.document.pooling.value,
    }


def compare_graph(
    run: RunGraph, graph: PooledGraph, model: ModelDescription, runtime: str
) -> Fidelity:
    """Compare an exported graph with the model, both poolings, over the fixed texts.

    The reference is the pooling of our own backends, not the exported module's. One batch holds
    all texts, others one text alone: any number of rows and any length must work.

    Args:
        run: Runs the exported graph.
        graph: What was exported.
        model: The model's tokenizer and space.
        runtime: What `run` runs in, with its version.
    """
    texts = check_texts(model)
    tokenizer = Tokenizer(model.files.tokenizer, model.space.max_seq_length)
    rows = tokenizer.tokenize(texts).input_ids
    lowest = 1.0
    for batch in (rows[:-1], rows[:1], rows[-1:]):
        expected = _reference(graph.model, batch, model.space)
        padded = _padded(batch, graph.model.pad_token_id)
        found = run(padded.input_ids.astype(np.int64), padded.attention_mask.astype(np.int64))
        lowest = min(lowest, *map(lowest_cosine, found, expected))
    return Fidelity(lowest, runtime, len(texts))


def _reference(
    model: PooledModel, rows: Sequence[npt.NDArray[np.int32]], space: EmbeddingSpace
) -> list[Vectors]:
    """Return the vectors of each pooling, each row computed alone."""
    found = []
    for is_cls in (True, False):
        with torch.inference_mode():
            vectors = [
                model(
                    torch.from_numpy(row[None]).long(),
                    torch.ones((1, len(row)), dtype=torch.int64),
                    torch.tensor([is_cls]),
                ).numpy()
                for row in rows
            ]
        found.append(finish_vectors(np.concatenate(vectors), space))
    return found


def _padded(rows: Sequence[npt.NDArray[np.int32]], pad_token_id: int) -> TokenBatch:
    return TokenBatch.pad(
        rows,
        np.zeros(len(rows), dtype=np.bool_),
        padded_length=max(map(len, rows)),
        pad_token_id=pad_token_id,
    )
