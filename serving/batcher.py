"""The queue in front of the encoder: batches by token budget, without a wait timer.

While the encoder works, requests queue; when it is free it takes what waits, up to the budget. So a
lone request is never delayed, and under load batches are as large as the load. All state lives on
the event loop; only the forward runs in a thread.

Knows nothing of HTTP, Ray or tokenizers.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from encoder.batching import bucket_length
from encoder.errors import BackendError, one_line
from encoder.isolation import EncodedEach
from encoder.space import Role
from encoder.tokenizer import Tokenized
from serving.errors import OverloadedError, TextFailedError
from serving.load import LoadMeter

__all__ = ["Batched", "TokenBatcher"]

_COME_AGAIN = "Send it again after the time in Retry-After"
_ALIKE_UP_TO = 4
"""Times the tokens of a refused request: what is likely to have so many is refused unread, too."""
_OLDEST_SHARE = 0.5
"""Of the budget, for the oldest request alone: a large one goes on however many small ones come."""


@dataclass(frozen=True)
class Batched:
    """What a request got.

    Attributes:
        vectors: float32 (N, D).
        queue_s: Seconds it waited for the encoder.
        forward_s: Seconds of the forwards that its texts were in.
    """

    vectors: npt.NDArray[np.float32]
    queue_s: float
    forward_s: float


@dataclass(eq=False)
class _Request:
    """Texts of one request, of which the first `taken` are encoded or under way."""

    tokenized: Tokenized
    role: Role
    costs: list[int]
    done: asyncio.Future[None]
    arrived: float
    rows: list[npt.NDArray[np.float32]] = field(default_factory=list)
    taken: int = 0
    tokens_left: int = field(init=False)
    forward_s: float = 0.0

    def __post_init__(self) -> None:
        self.tokens_left = sum(self.costs)

    @property
    def has_more(self) -> bool:
        return self.taken < len(self.costs) and not self.done.done()


class TokenBatcher:
    """Shares one encoder among requests.

    Args:
        encode: Encodes texts of mixed roles, one call at a time.
        thread: In which it runs; shut down by `close`.
        batch_tokens: Returns the padded tokens of one call (it may fall when memory runs out).
        max_queued_tokens: Tokens that may wait or be under way; beyond it requests are refused.
        max_queue_wait_s: Longest wait, beyond a request's own time, at which one is accepted.
        max_seq_length: The model's limit, for the cost of a text.
        load: Is told what arrives, waits and is encoded.
    """

    def __init__(
        self,
        encode: Callable[[Tokenized, Sequence[Role]], EncodedEach],
        *,
        thread: ThreadPoolExecutor,
        batch_tokens: Callable[[], int],
        max_queued_tokens: int,
        max_queue_wait_s: float,
        max_seq_length: int,
        load: LoadMeter,
    ) -> None:
        self._encode = encode
        self._batch_tokens = batch_tokens
        self._max_queued_tokens = max_queued_tokens
        self._max_queue_wait_s = max_queue_wait_s
        self._max_seq_length = max_seq_length
        self._load = load
        self._waiting: dict[int, _Request] = {}  # in order of arrival
        self._arrivals = 0
        self._thread = thread
        self._worker: asyncio.Task[None] | None = None
        self._failure: BackendError | None = None
        self._refused: tuple[int, int] | None = None
        """Fewest tokens, and their retry_after_s, refused since something last left the queue."""
        self._forward_since: float | None = None
        self._tokens_under_way = 0

    @property
    def forward_age_s(self) -> float:
        """For how long the forward under way runs; 0 if there is none."""
        return 0.0 if self._forward_since is None else time.monotonic() - self._forward_since

    @property
    def _forward_left_s(self) -> float:
        """How long the forward under way is likely to run; 0 if there is none, or no rate."""
        if self._forward_since is None or not self._load.tokens_per_s:
            return 0.0
        return max(0.0, self._load.seconds_for(self._tokens_under_way) - self.forward_age_s)

    @property
    def failure(self) -> BackendError | None:
        """Why the encoder fails for every text, as far as the last forward showed."""
        return self._failure

    def check_room(self, n_tokens: int) -> None:
        """Refuse a request of so many tokens, if they would wait behind too many others.

        Raises:
            OverloadedError: There is no room now.
        """
        try:
            self._check_queue(n_tokens)
            self._check_wait(n_tokens)
        except OverloadedError as refusal:
            if self._refused is None or n_tokens < self._refused[0]:
                self._refused = n_tokens, refusal.retry_after_s
            raise

    def check_unread(self, least_tokens: int, likely_tokens: int) -> None:
        """Refuse a request whose tokens nobody has counted, where counting them would be in vain.

        That is so if even the fewest overfill the queue, or if as many as it likely has were
        refused and nothing has left the queue since. (By the fewest alone the wait cannot be told:
        the queue never grows to where it would be too long for half of what a request has.)

        Raises:
            OverloadedError: There is no room now.
        """
        self._check_queue(least_tokens)
        waiting = self._load.queued_tokens
        if not waiting or self._refused is None:
            return
        n_tokens, retry_after_s = self._refused
        # A much larger one may wait longer, by as much as it takes by itself.
        if n_tokens <= likely_tokens <= _ALIKE_UP_TO * n_tokens:
            raise OverloadedError(
                f"{waiting} tokens wait, and a request of {n_tokens} was refused just now. "
                f"{_COME_AGAIN}",
                retry_after_s,
            )

    def _check_queue(self, n_tokens: int) -> None:
        waiting = self._load.queued_tokens
        if waiting and waiting + n_tokens > self._max_queued_tokens:
            raise OverloadedError(
                f"{waiting} tokens wait and {self._max_queued_tokens} may; this request has "
                f"{n_tokens}. {_COME_AGAIN}",
                retry_after_s=max(1, math.ceil(self._load.seconds_for(waiting))),
            )

    def _check_wait(self, n_tokens: int) -> None:
        if not self._load.queued_tokens:
            return
        # In turns, each of the others gets no more than this one until this one is through.
        ahead = sum(min(other.tokens_left, n_tokens) for other in self._waiting.values())
        wait_s = self._load.seconds_for(ahead) + self._forward_left_s
        if wait_s > self._max_queue_wait_s + self._load.seconds_for(n_tokens):
            raise OverloadedError(
                f"this request's {n_tokens} tokens would wait {wait_s:.1f} s for {ahead} others "
                f"and what is under way; the limit is {self._max_queue_wait_s:g} s more than they "
                "take by themselves. "
                f"{_COME_AGAIN}",
                retry_after_s=max(1, math.ceil(wait_s)),
            )

    async def submit(
        self, tokenized: Tokenized, role: Role, *, is_admitted: bool = False
    ) -> Batched:
        """Encode a request's texts; they may share forwards with other requests'.

        Cancelling the call takes what is not yet under way out of the queue.

        Args:
            tokenized: N texts, at least one.
            role: Their role.
            is_admitted: Accept it however many wait, as a health check must be.

        Raises:
            OverloadedError: Too many tokens wait.
            TextFailedError: One of these texts makes the model raise.
            BackendError: The model fails for every text.
        """
        n_tokens = tokenized.total_tokens
        if not is_admitted:
            self.check_room(n_tokens)
        costs = [
            bucket_length(max(1, n), self._max_seq_length) for n in tokenized.n_tokens.tolist()
        ]
        request = _Request(
            tokenized, role, costs, asyncio.get_running_loop().create_future(), time.monotonic()
        )
        self._arrivals += 1
        place = self._arrivals
        self._waiting[place] = request
        self._load.enter(n_tokens)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            await request.done
        finally:
            self._waiting.pop(place, None)
            self._load.leave(n_tokens)
            self._refused = None
            # Of those that gave up, too: an endpoint where all time out is not one without waits.
            waited = time.monotonic() - request.arrived - request.forward_s
            self._load.waited(waited)
        return Batched(np.stack(request.rows), waited, request.forward_s)

    async def close(self) -> None:
        """Wait for the forward under way; what waits is cancelled."""
        for request in self._waiting.values():
            request.done.cancel()
        self._waiting.clear()
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def _work(self) -> None:
        """Encode until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while picked := self._take():
                tokenized = Tokenized.join([request.tokenized.take([i]) for request, i in picked])
                roles = [request.role for request, _ in picked]
                started = self._forward_since = time.monotonic()
                self._tokens_under_way = tokenized.total_tokens
                try:
                    encoded = await loop.run_in_executor(
                        self._thread, self._encode, tokenized, roles
                    )
                except Exception as error:  # whatever it is, nobody may wait forever
                    self._failure = _as_backend_error(error)
                    self._fail(picked, self._failure)
                    continue
                finally:
                    self._forward_since = None
                    self._tokens_under_way = 0
                seconds = time.monotonic() - started
                self._failure = None
                self._load.encoded(tokenized.total_tokens, encoded.padded_tokens, seconds)
                self._deliver(picked, encoded, seconds)
        finally:
            self._worker = None

    def _take(self) -> list[tuple[_Request, int]]:
        """Pick texts up to the budget.

        The oldest request may fill half of it; the rest is shared, one text of each request in
        turn, oldest first. A text that does not fit now waits; its request becomes the oldest, of
        which at least one text is always taken, so nothing starves.
        """
        budget = self._batch_tokens()
        self._drop_finished()
        self._refused = None
        picked: list[tuple[_Request, int]] = []
        spent = 0

        def take(request: _Request, limit: float) -> bool:
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

        for oldest in self._waiting.values():
            while take(oldest, budget * _OLDEST_SHARE):
                pass
            break
        is_turn_worth_it = bool(picked)
        while is_turn_worth_it and spent < budget:
            is_turn_worth_it = False
            for request in self._waiting.values():
                is_turn_worth_it |= take(request, budget)
        self._drop_finished()
        return picked

    def _drop_finished(self) -> None:
        """Take out what is encoded, or has failed or was cancelled since the last forward."""
        self._waiting = {
            place: request for place, request in self._waiting.items() if request.has_more
        }

    @staticmethod
    def _deliver(picked: list[tuple[_Request, int]], encoded: EncodedEach, seconds: float) -> None:
        for request in {id(request): request for request, _ in picked}.values():
            request.forward_s += seconds
        for position, (request, index) in enumerate(picked):
            if request.done.done():
                continue  # the client went away, or another of its texts failed
            error = encoded.failures.get(position)
            if error is not None:
                request.done.set_exception(
                    TextFailedError(
                        f"the model cannot embed input {index}; leave it out, the others are not "
                        "the reason (the endpoint's log has it)"
                    )
                )
                continue
            request.rows.append(encoded.vectors[position])
            if len(request.rows) == len(request.costs):
                request.done.set_result(None)

    @staticmethod
    def _fail(picked: list[tuple[_Request, int]], error: BackendError) -> None:
        for request, _ in picked:
            if not request.done.done():
                request.done.set_exception(error)


def _as_backend_error(error: Exception) -> BackendError:
    if isinstance(error, BackendError):
        return error
    failure = BackendError(f"the encoder raised {one_line(error)}; restart the worker")
    failure.__cause__ = error
    return failure
