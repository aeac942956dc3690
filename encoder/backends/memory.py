"""How much fits on a device: the token budget found at start, and what to do when it was too much.

Pure control flow over functions that may run out of memory; knows no framework.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from encoder.backends.base import TokenBatch
from encoder.errors import BackendError

__all__ = ["forward_within_memory", "probe_token_budget"]

_SMALLEST_PROBE_TOKENS = 16 * 1024
_LARGEST_PROBE_TOKENS = 256 * 1024


def probe_token_budget(
    fits: Callable[[int], bool],
    smallest: int = _SMALLEST_PROBE_TOKENS,
    largest: int = _LARGEST_PROBE_TOKENS,
) -> int:
    """Return the largest budget that fits, found by doubling.

    Args:
        fits: Runs a forward of so many padded tokens; False when memory ran out.
        smallest: Where doubling begins; returned even where it does not fit, since
            `forward_within_memory` halves it when the time comes.
        largest: Where doubling ends: beyond it a GPU is busy anyway.
    """
    budget = smallest
    if not fits(budget):
        return budget
    while budget * 2 <= largest and fits(budget * 2):
        budget *= 2
    return budget


def forward_within_memory(
    batch: TokenBatch,
    forward: Callable[[TokenBatch], npt.NDArray[np.float32]],
    is_out_of_memory: Callable[[Exception], bool],
    on_out_of_memory: Callable[[TokenBatch], None],
    budget: Callable[[], int],
) -> npt.NDArray[np.float32]:
    """Run a batch, in halves where memory runs out.

    Args:
        batch: B rows.
        forward: One forward; may raise.
        is_out_of_memory: Tells running out of memory from other errors.
        on_out_of_memory: Called with the batch that did not fit: frees caches, lowers the budget.
        budget: Padded tokens that a batch of several texts may have, as it stands by now.

    Returns:
        The vectors of the whole batch, (B, H).

    Raises:
        BackendError: One text alone does not fit.
    """
    if len(batch) == 1 or batch.padded_tokens <= budget():
        try:
            return forward(batch)
        # What counts as out of memory is the framework's to say; anything else goes on up.
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise BackendError(
                    f"expected one text of {batch.padded_tokens} tokens to fit in the device's "
                    "memory, found it full; free the device or lower max_seq_length"
                ) from error
        # Outside the except clause: there the error would keep the failed forward's tensors.
        on_out_of_memory(batch)
    parts = [
        forward_within_memory(half, forward, is_out_of_memory, on_out_of_memory, budget)
        for half in batch.halves()
    ]
    return np.concatenate(parts)
