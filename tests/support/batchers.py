"""A batcher with a fake encoder that can be held up, for tests of the queue and of admission."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from encoder.batching import bucket_length
from encoder.isolation import EncodedEach, encode_each
from encoder.space import Role
from encoder.tokenizer import Tokenized
from serving.batcher import Batched, TokenBatcher
from serving.load import LoadMeter
from support.fake_encoder import FakeEncoder

__all__ = [
    "BUDGET",
    "MANY_TOKENS",
    "MAX_SEQ_LENGTH",
    "Forwards",
    "batcher_of",
    "names_of",
    "queued",
    "run",
    "sent",
    "texts_of",
    "vectors_of",
]

MAX_SEQ_LENGTH = 128
BUDGET = 32
MANY_TOKENS = 1_000_000

_numbers = count(1)


def texts_of(*lengths: int) -> Tokenized:
    """Texts of so many tokens, each unlike every other."""
    numbers = [next(_numbers) for _ in lengths]
    return Tokenized(
        [
            np.full(length, number, np.int32)
            for number, length in zip(numbers, lengths, strict=True)
        ],
        np.array(lengths, np.int32),
        np.zeros(len(lengths), bool),
    )


def names_of(tokenized: Tokenized) -> list[int]:
    return [int(ids[0]) for ids in tokenized.input_ids]


def vectors_of(tokenized: Tokenized, role: Role) -> np.ndarray:
    """What a request has to be answered."""
    return FakeEncoder().encode_tokenized(tokenized, role).vectors


class Forwards:
    """Encodes with the fake encoder; keeps what every call held, and can hold one up."""

    def __init__(self) -> None:
        self.encoder = FakeEncoder()
        self.encode = partial(encode_each, self.encoder)
        self.calls: list[list[int]] = []
        self.roles: list[list[Role]] = []
        self.costs: list[list[int]] = []
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    def __call__(self, tokenized: Tokenized, roles: Sequence[Role]) -> EncodedEach:
        self.calls.append(names_of(tokenized))
        self.roles.append(list(roles))
        self.costs.append([self.padded(n) for n in tokenized.n_tokens.tolist()])
        assert self._may_go_on.wait(20)
        return self.encode(tokenized, roles)

    @staticmethod
    def padded(n_tokens: int) -> int:
        """Padded tokens of a text."""
        return bucket_length(n_tokens, MAX_SEQ_LENGTH)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        self._may_go_on.clear()
        try:
            yield
        finally:
            self._may_go_on.set()

    async def begun(self, calls: int) -> None:
        while len(self.calls) < calls:  # noqa: ASYNC110 - they are counted in another thread
            await asyncio.sleep(0.001)


def batcher_of(
    encode: Callable[[Tokenized, Sequence[Role]], EncodedEach],
    *,
    budget: int | Callable[[], int] = BUDGET,
    max_queued_tokens: int = MANY_TOKENS,
    max_queue_wait_s: float | None = math.inf,
    load: LoadMeter | None = None,
) -> TokenBatcher:
    batch_tokens = budget if callable(budget) else lambda: budget
    return TokenBatcher(
        encode,
        thread=ThreadPoolExecutor(1),
        batch_tokens=batch_tokens,
        max_queued_tokens=max_queued_tokens,
        max_queue_wait_s=max_queue_wait_s,
        max_seq_length=MAX_SEQ_LENGTH,
        load=load or LoadMeter(BUDGET if callable(budget) else budget),
    )


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario; one that hangs fails."""
    asyncio.run(asyncio.wait_for(scenario, 20))


def sent(
    batcher: TokenBatcher, tokenized: Tokenized, role: Role = Role.DOCUMENT
) -> asyncio.Task[Batched]:
    return asyncio.create_task(batcher.submit(tokenized, role))


async def queued() -> None:
    """Let the tasks that were just created reach the queue."""
    for _ in range(5):
        await asyncio.sleep(0)
