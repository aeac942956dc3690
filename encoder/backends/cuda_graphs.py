"""Small forwards recorded as CUDA graphs: a GPU replays one at once.

Starting the 150 kernels of a forward one by one takes milliseconds, however few the texts. A graph
is of one shape; for texts laid end to end that is a number of tokens, so a few graphs do. What a
graph has too many is padding: texts of their own, whose vectors nobody reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from encoder.backends.flat_model import FlatBatch, FlatModel

__all__ = ["RecordedForwards", "filled_up"]

_TOKENS = tuple(1 << power for power in range(4, 13))
"""Of the graphs: 16 to 4,096. Beyond that a GPU has enough to do."""
_LEAST_TEXT = 3
"""Tokens: [CLS], one, [SEP]."""
_MOST_TEXTS = 256
_WARM_UPS = 2


class RecordedForwards:
    """Graphs of a model, one for each number of tokens.

    Args:
        model: On a GPU, for inference.
        device: That GPU.
        max_seq_length: Tokens of the longest text.
        pad_token_id: What stands in the padding.
    """

    def __init__(
        self, model: FlatModel, device: torch.device, *, max_seq_length: int, pad_token_id: int
    ) -> None:
        self._pad_token_id = pad_token_id
        self._max_seq_length = max_seq_length
        self._graphs: dict[int, _Graph] = {}
        pool: Any = None
        # The largest first: the others find room in its memory.
        for tokens in reversed(_TOKENS):
            texts = min(_MOST_TEXTS, tokens // _LEAST_TEXT + 1)
            longest = min(tokens, max_seq_length)
            graph = _Graph(model, device, tokens, texts, longest, pool)
            self._graphs[tokens] = graph
            pool = graph.pool

    def launch(self, batch: FlatBatch) -> torch.Tensor | None:
        """Start a forward; return its vectors on the device, (B, H), or None where none fits.

        They are there until the next call.
        """
        for tokens in _TOKENS:
            graph = self._graphs[tokens]
            filled = filled_up(
                batch,
                tokens,
                graph.texts,
                max_seq_length=self._max_seq_length,
                pad_token_id=self._pad_token_id,
            )
            if filled is not None:
                return graph.replay(filled)[: len(batch.is_cls)]
        return None


def filled_up(
    batch: FlatBatch, tokens: int, texts: int, *, max_seq_length: int, pad_token_id: int
) -> FlatBatch | None:
    """Return a batch of so many tokens and texts, or None where it has more.

    Args:
        batch: What comes first.
        tokens: Of all texts.
        texts: Texts; the last ones may have no tokens.
        max_seq_length: Tokens that a text of padding may have.
        pad_token_id: What stands in the padding.
    """
    have = len(batch.input_ids)
    ends = [*range(have + max_seq_length, tokens, max_seq_length), tokens] if have < tokens else []
    more = texts - len(batch.is_cls) - len(ends)
    if have > tokens or more < 0:
        return None
    padding = (np.arange(tokens - have, dtype=np.int32)) % max_seq_length
    return FlatBatch(
        np.concatenate([batch.input_ids, np.full(tokens - have, pad_token_id, np.int32)]),
        np.concatenate([batch.positions, padding]),
        np.concatenate([batch.starts, np.array([*ends, *[tokens] * more], np.int32)]),
        np.concatenate([batch.is_cls, np.zeros(len(ends) + more, np.bool_)]),
        batch.longest,
    )


class _Graph:
    """A forward of one shape, and the memory that it reads and writes."""

    def __init__(
        self,
        model: FlatModel,
        device: torch.device,
        tokens: int,
        texts: int,
        longest: int,
        pool: Any,  # noqa: ANN401 - a handle of PyTorch's
    ) -> None:
        self.texts = texts
        zeros = np.zeros(0, np.int32)
        empty = FlatBatch(zeros, zeros, np.zeros(1, np.int32), np.zeros(0, np.bool_), longest)
        filled = filled_up(empty, tokens, texts, max_seq_length=longest, pad_token_id=0)
        assert filled is not None
        self._inputs = [torch.from_numpy(array).to(device) for array in filled.arrays]
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    model(*self._inputs, longest=longest)
            torch.cuda.current_stream(device).wait_stream(stream)
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._vectors: torch.Tensor = model(*self._inputs, longest=longest)
        self.pool = self._graph.pool()

    def replay(self, batch: FlatBatch) -> torch.Tensor:
        for array, tensor in zip(batch.arrays, self._inputs, strict=True):
            tensor.copy_(torch.from_numpy(array).pin_memory(), non_blocking=True)
        self._graph.replay()
        return self._vectors
