"""Small forwards recorded as CUDA graphs: a GPU replays one at once.

Starting the 150 kernels of a forward one by one takes milliseconds, however few the texts. A graph
is of one shape; for texts laid end to end that is a number of tokens, so a few graphs do. What a
graph has too many is padding: texts of their own, whose vectors nobody reads.
"""

from __future__ import annotations

import numpy as np
import torch

from encoder.backends.fidelity import MIN_REDUCED_COSINE, lowest_cosine, proof_batches
from encoder.backends.flat_model import FlatBatch, FlatModel
from encoder.errors import BackendError

__all__ = ["RecordedForwards", "filled_up"]

_TOKENS = tuple(1 << power for power in range(4, 13))
"""Of the graphs: 16 to 4,096. Beyond that a GPU has enough to do (measured: 12 layers of 384 on an
H200)."""
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

    Raises:
        BackendError: A graph gives other vectors than the model.
        RuntimeError: PyTorch cannot record the model, or memory ran out.
    """

    def __init__(
        self, model: FlatModel, device: torch.device, *, max_seq_length: int, pad_token_id: int
    ) -> None:
        self._pad_token_id = pad_token_id
        self._max_seq_length = max_seq_length
        self._graphs: dict[int, _Graph] = {}
        graph: _Graph | None = None
        # The largest first: the others find room in its memory.
        for tokens in reversed(_TOKENS):
            longest = min(tokens, max_seq_length)
            texts = max(min(_MOST_TEXTS, tokens // _LEAST_TEXT + 1), -(-tokens // longest))
            graph = _Graph(model, device, tokens, texts, longest, graph)
            self._graphs[tokens] = graph
        self._prove(model, device)

    def _prove(self, model: FlatModel, device: torch.device) -> None:
        """Compare every graph with the model."""
        for tokens, graph in self._graphs.items():
            for batch in proof_batches(self._pad_token_id):
                texts = FlatBatch.of(batch, model.uncounted)
                filled = self._filled_up(texts, tokens, graph)
                if filled is None or texts.longest > self._max_seq_length:
                    continue
                found = graph.replay(filled)[: len(batch)].cpu().numpy()
                arrays = (torch.from_numpy(array).to(device) for array in texts.arrays)
                with torch.inference_mode():
                    expected = model(*arrays, longest=texts.longest).cpu().numpy()
                lowest = lowest_cosine(found, expected)
                if lowest < MIN_REDUCED_COSINE:
                    raise BackendError(
                        f"expected a recorded forward of {tokens} tokens to give the model's "
                        f"vectors, found cosine {lowest:.5f}"
                    )

    def launch(self, batch: FlatBatch) -> torch.Tensor | None:
        """Start a forward; return its vectors on the device, (B, H), or None where none fits.

        They are there until the next call.
        """
        for tokens in _TOKENS:
            graph = self._graphs[tokens]
            filled = self._filled_up(batch, tokens, graph)
            if filled is not None:
                return graph.replay(filled)[: len(batch.is_cls)]
        return None

    def _filled_up(self, batch: FlatBatch, tokens: int, graph: _Graph) -> FlatBatch | None:
        return filled_up(
            batch,
            tokens,
            graph.texts,
            max_seq_length=self._max_seq_length,
            pad_token_id=self._pad_token_id,
        )


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
    """A forward of one shape, and the memory that it reads and writes.

    Args:
        model: On a GPU, for inference.
        device: That GPU.
        tokens: Of all texts.
        texts: How many.
        longest: Tokens of the longest text.
        other: A graph whose memory it may use: only one of them is replayed at a time.
    """

    def __init__(
        self,
        model: FlatModel,
        device: torch.device,
        tokens: int,
        texts: int,
        longest: int,
        other: _Graph | None,
    ) -> None:
        self.texts = texts
        starts = np.minimum(np.arange(texts + 1) * longest, tokens).astype(np.int32)
        zeros, is_cls = np.zeros(tokens, np.int32), np.zeros(texts, np.bool_)
        batch = FlatBatch(zeros, zeros, starts, is_cls, longest)
        self._inputs = [torch.from_numpy(array).to(device) for array in batch.arrays]
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.device(device):
            self._stream: torch.cuda.Stream = (
                torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
                if other is None
                else other._stream
            )
            self._stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):
                    model(*self._inputs, longest=longest)
            torch.cuda.current_stream(device).wait_stream(self._stream)
            # Unless told, PyTorch records on a stream of the device that was current first.
            with torch.cuda.graph(
                self._graph,
                pool=None if other is None else other._graph.pool(),
                stream=self._stream,
                capture_error_mode="thread_local",
            ):
                self._vectors: torch.Tensor = model(*self._inputs, longest=longest)

    def replay(self, batch: FlatBatch) -> torch.Tensor:
        # What is copied in, computed and copied out is queued on one stream, one after the other.
        for array, tensor in zip(batch.arrays, self._inputs, strict=True):
            tensor.copy_(torch.from_numpy(array).pin_memory(), non_blocking=True)
        self._graph.replay()
        return self._vectors
