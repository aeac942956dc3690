"""What waits for the encoder, and which texts of it share the next forward.

The event loop puts requests in, the encoder's thread takes texts out. Knows nothing of encoders,
limits or clocks.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from encoder.space import Role
from encoder.tokenizer import Tokenized

__all__ = ["FairQueue", "Picked", "QueuedRequest"]

_OLDEST_SHARE = 0.25
"""Of the budget, for the oldest request alone: a large one goes on however many small ones come."""


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
        tokens_left: Padded tokens of the others.
        forward_s: Seconds of the forwards that its texts were in.
    """

    tokenized: Tokenized
    role: Role
    costs: list[int]
    done: asyncio.Future[None]
    arrived: float
    rows: list[npt.NDArray[np.float32]] = field(default_factory=list)
    taken: int = 0
    tokens_left: int = field(init=False)
    forward_s: float = 0.0
    has_failed: bool = False

    def __post_init__(self) -> None:
        self.tokens_left = sum(self.costs)

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
        """Return the padded tokens that would be encoded before a new request's last one.

        In turns, each of the others gets no more than the new one until that is through.
        """
        with self._lock:
            return sum(min(other.tokens_left, n_tokens) for other in self._requests)

    def take(self, budget: int) -> Picked:
        """Pick texts of at most so many padded tokens, but at least one where any waits.

        The oldest request may fill a part of the budget; the rest is shared, one text of each
        request in turn, oldest first. A text that does not fit now waits; its request becomes the
        oldest, of which at least one text is always taken, so nothing starves. Where a forward
        completes requests, the others do not fill it up: short queries would wait for documents.
        """
        with self._lock:
            picked = self._pick(budget)
            self._is_emptied = not picked
            return picked

    def _pick(self, budget: int) -> Picked:
        self._drop_finished()
        picked: Picked = []
        spent = 0

        def take(request: QueuedRequest, limit: float) -> bool:
            nonlocal spent
            if not request.has_more:
                return False
            cost = request.costs[request.taken]
            if picked and spent + cost > limit:
                return False
            picked.append((request, request.taken))
            request.taken += 1
            request.tokens_left -= cost
            spent += cost
            return True

        for oldest in self._requests:
            while take(oldest, budget * _OLDEST_SHARE):
                pass
            break
        completed = 0
        is_turn_worth_it = bool(picked)
        while is_turn_worth_it and spent < budget:
            took = [request for request in self._requests if take(request, budget)]
            completes = sum(request.taken == len(request.costs) for request in took)
            completed += completes
            is_turn_worth_it = bool(took) and (completes > 0 or not completed)
        self._drop_finished()
        return picked

    def _drop_finished(self) -> None:
        """Take out what is encoded or under way, has failed or was cancelled."""
        self._requests = {request: None for request in self._requests if request.has_more}
