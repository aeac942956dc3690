"""Which requests are refused for load: by the tokens that wait, and by how long they would.

Knows nothing of HTTP; what it is asked, it answers at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from serving.errors import OverloadedError
from serving.fair_queue import FairQueue
from serving.load import DEFAULT_QUEUE_WAIT_S, FORWARD_S, LoadMeter

__all__ = ["Admission"]

_FORWARDS_OF_WAIT = 1.5
"""Full ones: a slow encoder's takes longer than the default wait, and most would be refused."""
_COME_AGAIN = "Send it again after the time in Retry-After"
_ALIKE_UP_TO = 4
"""Times the tokens of a refused request: what is likely to have so many is refused unread, too."""


@dataclass(frozen=True)
class _Refusal:
    """The fewest tokens that were refused since something last left the queue, and until when."""

    n_tokens: int
    retry_after_s: int
    holds_until: float


class Admission:
    """Refuses what would wait too long.

    Args:
        queue: What waits.
        load: Tells how many tokens wait or are under way, and how fast they are encoded.
        forward_left_s: Returns in how many seconds the encoder will be free for more.
        max_queued_tokens: Tokens that may wait or be under way; those of large requests do not
            count against a small one.
        max_queue_wait_s: Longest wait, beyond a request's own time, at which one is accepted; None
            for DEFAULT_QUEUE_WAIT_S, or one and a half full forwards where they take longer.
    """

    def __init__(
        self,
        queue: FairQueue,
        load: LoadMeter,
        forward_left_s: Callable[[], float],
        *,
        max_queued_tokens: int,
        max_queue_wait_s: float | None,
    ) -> None:
        self._queue = queue
        self._load = load
        self._forward_left_s = forward_left_s
        self._max_queued_tokens = max_queued_tokens
        self._max_queue_wait_s = max_queue_wait_s
        self._refused: _Refusal | None = None

    def queue_moved(self) -> None:
        """Judge afresh: something has left the queue."""
        self._refused = None

    def check_room(self, n_tokens: int) -> None:
        """Refuse a request of so many tokens, if they would wait behind too many others.

        Raises:
            OverloadedError: There is no room now.
        """
        self._check_queue(n_tokens)
        self._check_wait(n_tokens)

    def check_unread(self, least_tokens: int, likely_tokens: int) -> None:
        """Refuse a request whose tokens nobody has counted, where counting them would be in vain.

        That is so if even the fewest overfill the queue, or if as many as it likely has were
        refused and nothing has left the queue since. (By the fewest alone the wait cannot be told:
        the queue never grows to where it would be too long for half of what a request has.)

        Raises:
            OverloadedError: There is no room now.
        """
        self._check_queue(least_tokens)
        waiting, last = self._load.queued_tokens, self._refused
        if not waiting or last is None or time.monotonic() > last.holds_until:
            return
        # A much larger one may wait longer, by as much as it takes by itself.
        if last.n_tokens <= likely_tokens <= _ALIKE_UP_TO * last.n_tokens:
            raise OverloadedError(
                f"{waiting} tokens wait, and a request of {last.n_tokens} was refused just now. "
                f"{_COME_AGAIN}",
                last.retry_after_s,
            )

    def _check_queue(self, n_tokens: int) -> None:
        waiting, limit = self._load.queued_tokens, self._max_queued_tokens
        if waiting + n_tokens > limit:
            # Bulk may fill the queue: a query is served in turns with it, and not refused for it.
            waiting = max(0, waiting - self._queue.tokens_that_give_way(n_tokens))
        too_many = waiting + n_tokens - limit
        if waiting and too_many > 0:
            retry_after_s = max(1, math.ceil(self._load.seconds_for(min(too_many, waiting))))
            self._remember(_Refusal(n_tokens, retry_after_s, math.inf))
            raise OverloadedError(
                f"{waiting} tokens wait and {limit} may; this request has {n_tokens}. "
                f"{_COME_AGAIN}",
                retry_after_s,
            )

    def _check_wait(self, n_tokens: int) -> None:
        if not self._load.queued_tokens:
            return
        before = self._queue.tokens_before(n_tokens)
        # A long forward alone is no reason: whoever comes would be refused, though nobody waits.
        left_s = min(self._forward_left_s(), FORWARD_S)
        wait_s = self._load.seconds_for(before) + left_s
        longest_s = self._longest_wait_s()
        limit_s = longest_s + self._load.seconds_for(n_tokens)
        if wait_s > limit_s:
            retry_after_s = max(1, math.ceil(wait_s))
            # Until then what is under way will have gone on by as much as was too long.
            holds_until = time.monotonic() + wait_s - limit_s
            self._remember(_Refusal(n_tokens, retry_after_s, holds_until))
            raise OverloadedError(
                f"this request's {n_tokens} tokens would wait {wait_s:.1f} s for {before} others "
                f"and what is under way; the limit is {round(longest_s, 2):g} s more than they "
                f"take by themselves. {_COME_AGAIN}",
                retry_after_s,
            )

    def _longest_wait_s(self) -> float:
        if self._max_queue_wait_s is not None:
            return self._max_queue_wait_s
        return max(DEFAULT_QUEUE_WAIT_S, _FORWARDS_OF_WAIT * self._load.full_forward_s)

    def _remember(self, refusal: _Refusal) -> None:
        last = self._refused
        if last is None or refusal.n_tokens < last.n_tokens or last.holds_until < time.monotonic():
            self._refused = refusal
