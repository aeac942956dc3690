"""How loaded a replica is: what waits, what was offered, how fast it encodes.

Feeds Retry-After, the autoscaler and the metrics. Knows nothing of Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["DEFAULT_QUEUE_WAIT_S", "FORWARD_S", "LoadMeter"]

_SMOOTHING = 0.2
"""Weight of the newest forward in the rate."""
_FIRST_GUESS_TOKENS = 8.0
"""Of an input, before any was seen."""
_TELLING_SHARE = 1 / 3
"""Of its budget. A token of the same texts costs more in a smaller forward: that one may show that
full ones are faster than was known, and that they are slower only where it takes as long as one."""
FORWARD_S = 0.1
"""What a forward should take at the most: who comes meanwhile waits for its end. (At ten
times the knee's load 0.2 s gave 499 requests/s and a p99 of 827 to 1,118 ms, 0.1 s 447 and 686.)"""
DEFAULT_QUEUE_WAIT_S = 0.15
"""One and a half such forwards: under overload the slowest answers then take about three times what
they take where nobody is refused (docs/decisions.md)."""
_LEAST_BATCH_TOKENS = 512
"""What a rate, however low, leaves of the budget: smaller forwards would make it lower still."""


class LoadMeter:
    """Counts tokens on one event loop.

    Args:
        max_batch_tokens: Padded tokens of the largest forward.
        clock: Seconds that only grow.
        cpu_clock: Seconds that the calling thread, the event loop's, has computed.

    Attributes:
        queued_tokens: That wait or are being encoded.
        offered_tokens: All that clients ever wanted encoded, refused ones included.
        tokens_per_s: That full forwards reach; 0 where nothing was encoded yet.
        padding_waste: Share of the last forward's tokens that was padding, 0 to 1.
    """

    def __init__(
        self,
        max_batch_tokens: int,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._clock = clock
        self._cpu_clock = cpu_clock
        self.queued_tokens = 0
        self.offered_tokens = 0
        self.tokens_per_s = 0.0
        self.padding_waste = 0.0
        self._tokens_per_input = _FIRST_GUESS_TOKENS
        self._waits = 0
        self._waited_s = 0.0
        self._since = clock()
        self._measured_at = self._since
        self._reported_tokens = 0
        self._reported_busy_s = 0.0
        self._loop_since_s = cpu_clock()

    @property
    def loop_busy_s(self) -> float:
        """Seconds that the event loop has computed since the warm-up."""
        return max(0.0, self._cpu_clock() - self._loop_since_s)

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a forward that takes no longer than others should wait for it."""
        if not self.tokens_per_s:
            return self._max_batch_tokens
        quick = max(_LEAST_BATCH_TOKENS, int(FORWARD_S * self.tokens_per_s))
        return min(self._max_batch_tokens, quick)

    @property
    def full_forward_s(self) -> float:
        """Seconds of a forward of so many tokens; 1 where nothing was encoded yet."""
        return self.seconds_for(self.batch_tokens)

    def offered(self, n_tokens: int, n_inputs: int) -> None:
        """Count what a client wanted encoded, whether it is accepted or not."""
        self.offered_tokens += n_tokens
        self._tokens_per_input += _SMOOTHING * (n_tokens / n_inputs - self._tokens_per_input)

    def offered_unread(self, likely_tokens: int) -> None:
        """Count a request that was refused before anybody counted its inputs."""
        self.offered_tokens += max(likely_tokens, self.expected_tokens(1))

    def expected_tokens(self, n_inputs: int) -> int:
        """Return the tokens that so many inputs usually have."""
        return max(1, round(n_inputs * self._tokens_per_input))

    def enter(self, n_tokens: int) -> None:
        """Count tokens that wait from now on."""
        self.queued_tokens += n_tokens

    def leave(self, n_tokens: int) -> None:
        """Count tokens that wait no more."""
        self.queued_tokens -= n_tokens

    def waited(self, seconds: float) -> None:
        """Count a request's wait for the encoder."""
        self._waits += 1
        self._waited_s += seconds

    def encoded(self, n_tokens: int, padded_tokens: int, seconds: float, share: float) -> None:
        """Count a forward.

        Args:
            n_tokens: Of its texts.
            padded_tokens: That were computed for them.
            seconds: It took.
            share: Of the budget that it had, 0 to 1 (a single long text may be more).
        """
        if padded_tokens:
            self.padding_waste = 1.0 - n_tokens / padded_tokens
        rate = n_tokens / max(seconds, 1e-6)
        # A full one takes at least as long.
        most = self.batch_tokens / max(seconds, 1e-6)
        if not self.tokens_per_s:
            self._learn(rate, 1.0)
        elif share >= _TELLING_SHARE or rate > self.tokens_per_s:
            self._learn(rate, _SMOOTHING)
        elif most < self.tokens_per_s:
            self._learn(most, _SMOOTHING)

    def _learn(self, rate: float, weight: float) -> None:
        self.tokens_per_s += weight * (rate - self.tokens_per_s)
        self._measured_at = self._clock()

    def measured_within(self, seconds: float) -> bool:
        """Whether a forward of so lately told how fast the encoder is."""
        return bool(self.tokens_per_s) and self._clock() - self._measured_at <= seconds

    def restart(self) -> None:
        """Forget rates and waits, as after a warm-up."""
        self.tokens_per_s = 0.0
        self._loop_since_s, self._reported_busy_s = self._cpu_clock(), 0.0
        self.report()

    def seconds_for(self, n_tokens: int) -> float:
        """Return how long so many tokens will take; 1 s where nothing was encoded yet."""
        return n_tokens / self.tokens_per_s if self.tokens_per_s else 1.0

    def report(self) -> dict[str, float]:
        """Return what the autoscaler asks of a replica, and begin a new interval.

        Returns:
            offered_tokens_per_s: Accepted and rejected tokens a second since the last report.
            capacity_tokens_per_s: Tokens a second that full forwards reach; 0 if there was none.
            queue_wait_s: Mean wait of the requests that left the queue since then.
            loop_busy: Share of the time in which the event loop computed, 0 to 1: short queries
                fill it before they fill a fast encoder.
        """
        now, busy_s = self._clock(), self.loop_busy_s
        elapsed = max(now - self._since, 1e-6)
        report = {
            "offered_tokens_per_s": (self.offered_tokens - self._reported_tokens) / elapsed,
            "capacity_tokens_per_s": self.tokens_per_s,
            "loop_busy": min(1.0, (busy_s - self._reported_busy_s) / elapsed),
            "queue_wait_s": self._waited_s / self._waits if self._waits else 0.0,
        }
        self._reported_tokens, self._reported_busy_s = self.offered_tokens, busy_s
        self._since, self._waits, self._waited_s = now, 0, 0.0
        return report
