"""What waits for the encoder, and which texts of it share the next forward.

The event loop puts requests in, the encoder's thread takes texts out. Knows nothing of encoders,
limits or clocks.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from encoder.space import Role
from encoder.tokenizer import Tokenized

__all__ = ["FairQueue", "Picked", "QueuedRequest"]

_PART = 0.25
"""Of the budget. A request of more tokens is large, and has about so many at a time."""


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
        n_tokens: Of all texts, without padding.
        tokens_left: Padded tokens of the texts that wait.
        unanswered_tokens: Without padding, of the texts whose vectors are not there yet.
        forward_s: Seconds of the forwards that its texts were in.
    """

    tokenized: Tokenized
    role: Role
    costs: list[int]
    done: asyncio.Future[None]
    arrived: float
    rows: list[npt.NDArray[np.float32]] = field(default_factory=list)
    taken: int = 0
    n_tokens: int = field(init=False)
    tokens_left: int = field(init=False)
    unanswered_tokens: int = field(init=False)
    forward_s: float = 0.0
    has_failed: bool = False

    def __post_init__(self) -> None:
        self.tokens_left = sum(self.costs)
        self.n_tokens = self.unanswered_tokens = self.tokenized.total_tokens

    @property
    def has_more(self) -> bool:
        """Whether some of its texts wait, and somebody for them."""
        return self.taken < len(self.costs) and not (self.has_failed or self.done.done())


Picked = list[tuple[QueuedRequest, int]]
"""Texts of a forward: a request, and the position of its text."""


class FairQueue:
    """Requests that wait for the encoder. Safe to use from several threads.

    In order of arrival, but large ones rotate: who had a part of a forward waits until the other
    large ones had theirs.
    """

    def __init__(self) -> None:
        self._requests: dict[QueuedRequest, None] = {}
        self._is_emptied = True
        self._had_small = False
        self._part = sys.maxsize
        self._lock = threading.Lock()

    def add(self, request: QueuedRequest, *, is_first: bool = False) -> bool:
        """Put a request behind the others.

        Args:
            request: The request.
            is_first: Put it before the others instead.

        Returns:
            Whether it is the first since `take` found nothing, so that somebody has to take again.
        """
        with self._lock:
            if is_first:
                self._requests = {request: None, **self._requests}
            else:
                self._requests[request] = None
            was_emptied, self._is_emptied = self._is_emptied, False
            return was_emptied

    def remove(self, request: QueuedRequest) -> None:
        """Take a request out, if it is there."""
        with self._lock:
            self._requests.pop(request, None)

    def take_all(self) -> list[QueuedRequest]:
        """Take out everything that waits; somebody has to take again for what comes."""
        with self._lock:
            requests, self._requests = list(self._requests), {}
            self._is_emptied = True
            return requests

    def tokens_before(self, n_tokens: int) -> int:
        """Return about how many padded tokens would be encoded before a new request's last one.

        In turns, each of the others gets about as much as the new one until that is through; but
        before a small one, all large ones together have about one part.
        """
        alike = large = 0
        with self._lock:
            is_large = n_tokens > self._part
            for request in self._requests:
                if is_large or request.n_tokens <= self._part:
                    alike += min(request.tokens_left, n_tokens)
                else:
                    large += request.tokens_left
        return alike + min(large, self._part)

    def tokens_that_give_way(self, n_tokens: int) -> int:
        """Return how many tokens wait or are under way that a new request has not to wait for.

        They are those of the large ones that are not all under way, if it is small.
        """
        with self._lock:
            if n_tokens > self._part:
                return 0
            larger = (r for r in self._requests if r.n_tokens > self._part)
            return sum(request.unanswered_tokens for request in larger)

    def take(self, budget: int) -> Picked:
        """Pick texts of at most so many padded tokens, but at least one where any waits.

        Small requests and large ones take turns. The small ones fill a forward: the oldest as far
        as it goes, then one text of each in turn, oldest first. After it one large request has a
        part of a forward (others fill the part where it has less left), so that short queries do
        not wait for all of it, and it goes on however many of them come. Where no small one came
        meanwhile, the large ones fill a forward, part by part.
        """
        with self._lock:
            self._part = max(1, int(budget * _PART))
            picked: Picked = []
            self._drop_finished()
            while self._requests and not picked:  # the event loop may cancel what was not dropped
                picked = self._pick(budget)
                self._drop_finished()
            self._is_emptied = not picked
            self._had_small &= bool(picked)
            return picked

    def _pick(self, budget: int) -> Picked:
        small, large = list[QueuedRequest](), list[QueuedRequest]()
        for request in self._requests:
            (small if request.n_tokens <= self._part else large).append(request)
        had_small, self._had_small = self._had_small, False
        forward = _Forward(budget)
        if large and (had_small or not small):
            self._add_large(forward, large, self._part if had_small else budget)
        else:
            self._had_small = True
            _add_small(forward, small)
        return forward.picked

    def _add_large(self, forward: _Forward, requests: Sequence[QueuedRequest], enough: int) -> None:
        """Let each have a part in turn, until it is enough; who had one goes behind the others."""
        took = True
        while took and forward.spent < enough:
            took = False
            for request in requests:
                until = min(forward.spent + self._part, enough)
                while forward.spent < until and forward.take(request):
                    took = True
        for request, _ in forward.picked:
            del self._requests[request]
            self._requests[request] = None

    def _drop_finished(self) -> None:
        """Take out what is encoded or under way, has failed or was cancelled."""
        self._requests = {request: None for request in self._requests if request.has_more}


def _add_small(forward: _Forward, requests: Sequence[QueuedRequest]) -> None:
    """Let the oldest have all it needs, then each a text in turn, until nothing fits."""
    while forward.take(requests[0]):
        pass
    took = True
    while took:
        took = False
        for request in requests:
            took |= forward.take(request)


class _Forward:
    """Texts that are to be encoded together."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self.picked: Picked = []
        self.spent = 0

    def take(self, request: QueuedRequest) -> bool:
        """Take a request's next text, if there is one and it fits; the first always does."""
        if not request.has_more:
            return False
        cost = request.costs[request.taken]
        if self.picked and self.spent + cost > self._budget:
            return False
        self.picked.append((request, request.taken))
        request.taken += 1
        request.tokens_left -= cost
        self.spent += cost
        return True
