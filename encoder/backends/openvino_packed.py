"""Rows of several short texts on compiled graphs, used only where they come out as alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from encoder.backends.base import PackedBatch, TokenBatch
from encoder.backends.fidelity import MIN_REDUCED_COSINE, lowest_cosine, proof_ids
from encoder.backends.openvino_graph import CompiledGraph
from encoder.batching import RowLimits

__all__ = ["PackedGraphs", "lone_batch", "packed_shapes", "proven"]

_ROW_TOKENS = 64
"""Longer rows spend more on attention between texts: 64 queries of 16 tokens a call, 437 texts/s in
rows of 64, 409 of 128 and 366 of 256; padded, in batches of similar length, 340."""
_MAX_TEXTS = 8
"""Texts of a row: with it the shape depends on the number of rows alone."""
_OVERHEAD_TOKENS = 16
"""What starting a forward costs: one row takes 4.8 ms, every further one 3.7."""
_PADDED_OVERHEAD_TOKENS = 96
"""What it costs on the graph of flexible shape that padded texts have, which seldom has the last
one's: two queries of 16 tokens take 7.2 ms, of which their tokens are 1.8."""
_PROOF_LENGTHS = (1, 3, 5, 9, 14, 23, 40)
_PROOF_ROWS = ((6, 5), (4, 3, 2, 1), (0, 1, 0, 1, 2, 3), (6,))
"""Texts of each row, by their place in `_PROOF_LENGTHS`."""

_logger = logging.getLogger(__name__)

_Vectors = npt.NDArray[np.float32]


class PackedGraphs:
    """Computes packed batches, each on the graph of its shape.

    A graph of flexible shape prepares again where the number of rows differs from the last one's:
    1 or 2 rows by turns took 9.0 ms with it instead of 7.3, and 1 to 4 rows 12.0 instead of 10.3.

    Args:
        graphs: By their number of rows, each compiled from a `PackedModel` in `packed_shapes`.
        streams: Forwards that each of them computes at once.
    """

    def __init__(self, graphs: Mapping[int, CompiledGraph], *, streams: int) -> None:
        self._graphs = graphs
        self.limits = RowLimits(
            row_tokens=_ROW_TOKENS,
            max_texts=_MAX_TEXTS,
            row_counts=sorted(graphs),
            streams=streams,
            overhead_tokens=_OVERHEAD_TOKENS,
            padded_overhead_tokens=_PADDED_OVERHEAD_TOKENS,
        )

    def forward(self, batches: Iterable[PackedBatch]) -> Iterator[tuple[int, _Vectors]]:
        """Yield (position, vectors (S, H)), shape after shape; all batches are drawn first."""
        alike: dict[int, list[tuple[int, PackedBatch]]] = {}
        for position, batch in enumerate(batches):
            alike.setdefault(len(batch.input_ids), []).append((position, batch))
        for rows, placed in alike.items():
            for index, vectors in self._graphs[rows].forward(batch for _, batch in placed):
                yield placed[index][0], vectors


def packed_shapes(rows: int) -> list[tuple[int, ...]]:
    """Return the shapes of `PackedBatch.arrays` for a number of rows."""
    return [(rows, _ROW_TOKENS)] * 3 + [(rows * _MAX_TEXTS,)] * 2


def proven(
    packed: PackedGraphs,
    alone: Callable[[Iterable[TokenBatch]], Iterable[tuple[int, _Vectors]]],
    pad_token_id: int,
) -> PackedGraphs | None:
    """Return the graphs if texts come out of each as they do alone.

    Args:
        packed: The graphs.
        alone: The same model's forward of padded batches.
        pad_token_id: What stands in the padding.
    """
    texts = [proof_ids(length) for length in _PROOF_LENGTHS]
    is_cls = np.arange(len(texts)) % 2 == 0
    expected = np.concatenate(
        [
            vectors
            for index, text in enumerate(texts)
            for _, vectors in alone([lone_batch(text, is_cls[index], pad_token_id)])
        ]
    )  # (texts, H)
    lowest = 1.0
    for count in packed.limits.row_counts:
        # Every kind of row comes first once, and every stream has something to do.
        rotations = range(max(len(_PROOF_ROWS), 2 * packed.limits.streams))
        rows_of = [
            [_PROOF_ROWS[(start + row) % len(_PROOF_ROWS)] for row in range(count)]
            for start in rotations
        ]
        chosen = [[index for row in rows for index in row] for rows in rows_of]
        batches = [
            PackedBatch.pack(
                [[texts[index] for index in row] for row in rows],
                is_cls[indices],
                row_tokens=_ROW_TOKENS,
                max_texts=_MAX_TEXTS,
                pad_token_id=pad_token_id,
            )
            for rows, indices in zip(rows_of, chosen, strict=True)
        ]
        for position, vectors in packed.forward(batches):
            indices = chosen[position]
            lowest = min(lowest, lowest_cosine(vectors[: len(indices)], expected[indices]))
    if lowest >= MIN_REDUCED_COSINE:
        return packed
    _logger.warning("texts that share a row come out otherwise (cosine %.5f): not packed", lowest)
    return None


def lone_batch(
    text: npt.NDArray[np.int32], is_cls: np.bool_ | bool, pad_token_id: int
) -> TokenBatch:
    """Return a batch of one text, without padding."""
    return TokenBatch.pad(
        [text], np.array([is_cls]), padded_length=len(text), pad_token_id=pad_token_id
    )
