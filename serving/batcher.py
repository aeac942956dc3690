"""In front of the encoder: batches by token budget, without a wait timer.

While the encoder works, requests queue; when it is free, its thread takes what waits, up to the
budget (`FairQueue` says whose turn it is). So a lone request is never delayed, under load batches
are as large as the load, and a busy event loop does not keep the encoder waiting. Answers are given
on the event loop.

Knows nothing of HTTP, Ray or tokenizers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from encoder.batching import bucket_length
from encoder.errors import BackendError, one_line
from encoder.isolation import EncodedEach
from encoder.space import Role
from encoder.tokenizer import Tokenized
from serving.admission import Admission
from serving.errors import ServeError, TextFailedError
from serving.fair_queue import FairQueue, Picked, QueuedRequest
from serving.load import LoadMeter

__all__ = ["Batched", "TokenBatcher"]

_logger = logging.getLogger("ray.serve")


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


@dataclass(frozen=True)
class _Forward:
    """Texts that are encoded together.

    Attributes:
        picked: Whose they are.
        tokenized: They themselves.
        share: Of the budget that the forward has.
        began: On the monotonic clock, in seconds.
    """

    picked: Picked
    tokenized: Tokenized
    share: float
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, picked: Picked, budget: int) -> _Forward:
        texts = [request.tokenized.take([index]) for request, index in picked]
        cost = sum(request.costs[index] for request, index in picked)
        return cls(picked, Tokenized.join(texts), cost / max(1, budget))

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.began


class TokenBatcher:
    """Shares one encoder among requests.

    Args:
        encode: Encodes texts of mixed roles, one call at a time.
        thread: In which it runs; shut down by `close`.
        batch_tokens: Returns the padded tokens of one call (it may fall when memory runs out).
        max_queued_tokens: Tokens that may wait or be under way: see `Admission`.
        max_queue_wait_s: Longest wait, beyond a request's own time, at which one is accepted; None
            leaves it to `Admission`.
        max_seq_length: The model's limit, for the cost of a text.
        load: Is told what arrives, waits and is encoded.

    Attributes:
        admission: Refuses what would wait too long.
    """

    def __init__(
        self,
        encode: Callable[[Tokenized, Sequence[Role]], EncodedEach],
        *,
        thread: ThreadPoolExecutor,
        batch_tokens: Callable[[], int],
        max_queued_tokens: int,
        max_queue_wait_s: float | None,
        max_seq_length: int,
        load: LoadMeter,
    ) -> None:
        self._encode = encode
        self._thread = thread
        self._batch_tokens = batch_tokens
        self._max_seq_length = max_seq_length
        self._load = load
        self._queue = FairQueue()
        self.admission = Admission(
            self._queue,
            load,
            self._forward_left_s,
            max_queued_tokens=max_queued_tokens,
            max_queue_wait_s=max_queue_wait_s,
        )
        self._under_way: _Forward | None = None
        self._failure: BackendError | None = None
        self._is_closed = False

    @property
    def forward_age_s(self) -> float:
        """For how long the forward under way runs; 0 if there is none."""
        forward = self._under_way
        return 0.0 if forward is None else forward.age_s

    @property
    def failure(self) -> BackendError | None:
        """Why the encoder fails for every text, as far as the last forward showed."""
        return self._failure

    async def submit(
        self, tokenized: Tokenized, role: Role, *, is_admitted: bool = False
    ) -> Batched:
        """Encode a request's texts; they may share forwards with other requests'.

        Cancelling the call takes what is not yet under way out of the queue.

        Args:
            tokenized: N texts, at least one.
            role: Their role.
            is_admitted: Accept it however many wait, and before them, as a health check must be.

        Raises:
            OverloadedError: Too many tokens wait.
            TextFailedError: One of these texts makes the model raise.
            BackendError: The model fails for every text.
            ServeError: The batcher is closed.
        """
        self.check_open()
        n_tokens = tokenized.total_tokens
        if not is_admitted:
            self.admission.check_room(n_tokens)
        costs = [
            bucket_length(max(1, n), self._max_seq_length) for n in tokenized.n_tokens.tolist()
        ]
        loop = asyncio.get_running_loop()
        request = QueuedRequest(tokenized, role, costs, loop.create_future(), time.monotonic())
        self._load.enter(n_tokens)
        if self._queue.add(request, is_first=is_admitted):
            # In the next turn of the event loop: what comes in this one shares the forward.
            loop.call_soon(self._thread.submit, self._work, loop)
        try:
            await request.done
        finally:
            self._queue.remove(request)
            self._load.leave(request.unanswered_tokens)
            self.admission.queue_moved()
            # Of those that gave up, too: an endpoint where all time out is not one without waits.
            waited = time.monotonic() - request.arrived - request.forward_s
            self._load.waited(waited)
        return Batched(np.array(request.rows), waited, request.forward_s)

    def check_open(self) -> None:
        """Refuse what comes after `close`.

        Raises:
            ServeError: The batcher is closed.
        """
        if self._is_closed:
            raise ServeError("the endpoint is stopping; send the request again")

    async def close(self) -> None:
        """Wait for the forward under way; what waits is cancelled."""
        self._is_closed = True
        for request in self._queue.take_all():
            request.done.cancel()
        await self.rest()
        self._thread.shutdown()

    async def rest(self) -> None:
        """Wait until the encoder's thread has seen that nothing waits."""
        await asyncio.get_running_loop().run_in_executor(self._thread, time.monotonic)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Encode until nothing waits. In the encoder's thread."""
        try:
            while picked := self._queue.take(budget := self._batch_tokens()):
                self.admission.queue_moved()
                self._encode_picked(picked, budget)
        except BaseException as error:  # a defect between two forwards: nobody may wait forever
            loop.call_soon_threadsafe(self._fail_all, error)

    def _fail_all(self, error: BaseException) -> None:
        """Fail what waits; the next request begins anew."""
        self._fail(self._queue.take_all(), _defect(error))

    def _encode_picked(self, picked: Picked, budget: int) -> None:
        """Encode texts, and have the event loop hand out what came of it."""
        loop = picked[0][0].done.get_loop()
        try:
            forward = self._under_way = _Forward.of(picked, budget)
            encoded = self._encode(forward.tokenized, [request.role for request, _ in picked])
            seconds = forward.age_s
            for position in encoded.failures:
                picked[position][0].has_failed = True
        except BaseException as error:  # a panic of compiled code is no Exception
            requests = [request for request, _ in picked]
            for request in requests:
                request.has_failed = True
            self._under_way = None
            loop.call_soon_threadsafe(self._fail, requests, _as_backend_error(error))
        else:
            self._under_way = None
            loop.call_soon_threadsafe(self._deliver, forward, encoded, seconds)

    def _deliver(self, forward: _Forward, encoded: EncodedEach, seconds: float) -> None:
        """Give requests what came out of a forward."""
        self._failure = None
        try:
            if not encoded.failures:  # the search for a text that fails takes as long as several
                n_tokens = forward.tokenized.total_tokens
                self._load.encoded(n_tokens, encoded.padded_tokens, seconds, forward.share)
            self._hand_out(forward, encoded, seconds)
        except Exception as error:  # a defect: nobody may wait forever
            self._fail([request for request, _ in forward.picked], _defect(error))
        self.admission.queue_moved()

    def _hand_out(self, forward: _Forward, encoded: EncodedEach, seconds: float) -> None:
        for request in {request for request, _ in forward.picked}:
            request.forward_s += seconds
        for position, (request, index) in enumerate(forward.picked):
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
            else:
                n_tokens = int(request.tokenized.n_tokens[index])
                request.unanswered_tokens -= n_tokens
                self._load.leave(n_tokens)

    def _fail(self, requests: Iterable[QueuedRequest], error: BackendError) -> None:
        self._failure = error
        for request in requests:
            if not request.done.done():
                request.done.set_exception(error)

    def _forward_left_s(self) -> float:
        """Return how long the forward under way is likely to run; 0 where nobody knows."""
        forward = self._under_way
        if forward is None or not self._load.tokens_per_s:
            return 0.0
        whole_s = self._load.seconds_for(forward.tokenized.total_tokens)
        return max(0.0, whole_s - forward.age_s)


def _defect(error: BaseException) -> BackendError:
    _logger.error("the batcher met a defect", exc_info=error)
    return BackendError(f"the batcher met a defect: {one_line(error)}")


def _as_backend_error(error: BaseException) -> BackendError:
    if isinstance(error, BackendError):
        return error
    failure = BackendError(f"the encoder raised {one_line(error)}; restart the worker")
    failure.__cause__ = error
    return failure
