"""Before a replica is ready: graphs of short texts, shapes of others, a measured full forward."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from encoder.encoder import Encoder
from encoder.space import Role
from encoder.tokenizer import Tokenized
from serving.batcher import TokenBatcher
from serving.load import LoadMeter

__all__ = ["warm_up"]

_LENGTHS = (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 128, 256)
_ROWS = (1, 2, 4, 8, 16)
_WARMED_TOKENS = 256
"""Of the largest. A shape's first forward takes up to 10 ms more than its second (torch on a CPU;
OpenVINO none), whatever its size: nothing beside what a larger one takes (all up to 1,024: 9 s)."""
_MEASURED_FORWARDS = 3


async def warm_up(
    encoder: Encoder, batcher: TokenBatcher, thread: ThreadPoolExecutor, load: LoadMeter
) -> None:
    """Prepare an encoder and learn how fast it is.

    Args:
        encoder: The model.
        batcher: In front of it.
        thread: In which it runs.
        load: Forgets what the warm-up showed, and learns from full forwards.
    """
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(thread, encoder.expect_short_texts)
    longest = encoder.space.max_seq_length
    full = encoder.tokenize(["warm " * longest], Role.QUERY)
    for length in sorted({min(length, longest) for length in _LENGTHS}):
        for rows in _ROWS:
            if rows * length > _WARMED_TOKENS:
                continue
            ids = full.input_ids[0][:length]
            texts = Tokenized(
                [ids] * rows, np.full(rows, len(ids), np.int32), np.zeros(rows, np.bool_)
            )
            await batcher.submit(texts, Role.QUERY)
            # A large request has a whole forward only where no small one was in the last.
            await batcher.rest()
    rows = max(1, encoder.max_concurrent_tokens // longest)
    await batcher.submit(full.take([0] * rows), Role.QUERY)  # allocates what the next ones use
    load.restart()
    for _ in range(_MEASURED_FORWARDS):
        await batcher.submit(full.take([0] * rows), Role.QUERY)
    load.report()
