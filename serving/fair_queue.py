"""What waits for the encoder, and which texts of it share the next forward.

The event loop puts requests in, the encoder's thread takes texts out. Knows nothing of encoders,
limits or clocks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from encoder.space import Role
from encoder.tokenizer import Tokenized

__all__ = ["FairQueue", "Picked", "QueuedRequest"]

_LARGE_SHARE = 1 / 3
"""Of the budget: requests of more tokens are large, and may have so many between small ones.

More than `LoadMeter` asks of a forward that tells how fast the encoder is.
"""


@dataclass(eq=False)
class QueuedRequest:
    """Texts of one request, of which the first `taken` are encoded or under way.

    Attributes:
        tokenized: N texts.
        role: Their role.
        costs: Padded tokens of each text.
        done: Is given a result, or what went wrong, on the event loop.
        has_failed: Whether a forward of its texts failed; known before `done` has it.
        arrived: On the monotonic clock, in seconds.
        rows: The vectors so far, float32 (D,) each.
        taken: Texts that are encoded or under way.
        padded_tokens: Of all texts.
        tokens_left: Those of the texts that wait.
        forward_s: Seconds of the forwards that its texts were in.
    """

    tokenized: Tokenized
    role: Role
    costs: list[int]
    done: asyncio.Future[None]
    arrived: float
    rows: list[npt.NDArray[np.float32]] = field(default_factory=list)
    taken: int = 0
    padded_tokens: int = field(init=False)
    tokens_left: int = field(init=False)
    forward_s: float = 0.0
    has_failed: bool = False

    def __post_init__(self) -> None:
        self.padded_tokens = self.tokens_left = sum(self.costs)

    @property
    def has_more(self) -> bool:
        """Whether some of its texts wait, and somebody for them."""
        return self.taken < len(self.costs) and not (self.has_failed or self.done.done())


Picked = list[tuple[QueuedRequest, int]]
"""Texts of a forward: a request, and the position of its text."""


class FairQueue:
    """Requests in order of arrival. Safe to use from several threads."""

    def __init__(self) -> None:
        self._requests: dict[QueuedRequest, None] = {}
        self._is_emptied = True
        self._had_small = False
        self._lock = threading.Lock()

    def add(self, request: QueuedRequest) -> bool:
        """Put a request behind the others.

        Returns:
            Whether it is the first since `take` found nothing, so that somebody has to take again.
        """
        with self._lock:
            self._requests[request] = None
            is_first, self._is_emptied = self._is_emptied, False
            return is_first

    def remove(self, request: QueuedRequest) -> None:
        """Take a request out, if it is there."""
        with self._lock:
            self._requests.pop(request, None)

    def cancel_all(self) -> None:
        """Cancel everything that waits."""
        with self._lock:
            for request in self._requests:
                request.done.cancel()
            self._requests.clear()

    def tokens_before(self, n_tokens: int) -> int:
        """Return about how many padded tokens would be encoded before a new request's last one.

        As if all took turns: each of the others gets no more than the new one before that is done.
        """
        with self._lock:
            return sum(min(other.tokens_left, n_tokens) for other in self._requests)

    def take(self, budget: int) -> Picked:
        """Pick texts of at most so many padded tokens, but at least one where any waits.

        Small requests and large ones take turns: short queries do not wait for a bulk request's
        texts but for a part of a forward, and a bulk request goes on however many queries come.
        Within a forward, one text of each request in turn. Among the small ones the oldest is first
        each time; of the large ones each has the next part to itself before one has two.
        """
        with self._lock:
            picked: Picked = []
            self._drop_finished()
            while self._requests and not picked:  # the event loop may cancel what was not dropped
                picked = self._pick(budget)
                self._drop_finished()
            self._is_emptied = not picked
            self._had_small &= bool(picked)
            return picked

    def _pick(self, budget: int) -> Picked:
        large_share = max(1, int(budget * _LARGE_SHARE))
        small = [request for request in self._requests if request.padded_tokens <= large_share]
        large = [request for request in self._requests if request.padded_tokens > large_share]
        had_small, self._had_small = self._had_small, False
        if small and not (large and had_small):
            self._had_small = True
            return _in_turns(small, budget)
        picked = _in_turns(large, large_share if had_small else budget)
        for request, _ in picked:
            self._requests.pop(request, None)
            self._requests[request] = None
        return picked

    def _drop_finished(self) -> None:
        """Take out what is encoded or under way, has failed or was cancelled."""
        self._requests = {request: None for request in self._requests if request.has_more}


def _in_turns(requests: Sequence[QueuedRequest], budget: int) -> Picked:
    """Pick one text of each request after the other, until the budget is full."""
    picked: Picked = []
    spent = 0
    took = True
    while took and spent < budget:
        took = False
        for request in requests:
            if not request.has_more:
                continue
            cost = request.costs[request.taken]
            if picked and spent + cost > budget:
                continue
            picked.append((request, request.taken))
            request.taken += 1
            request.tokens_left -= cost
            spent += cost
            took = True
    return picked
