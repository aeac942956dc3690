"""The one call that every dialect makes: inputs and a role in, vectors and receipts out.

Limits, tokenizing (short texts here, others off the event loop), admission, the batcher, the
deadline, `dimensions`. Knows nothing of HTTP or of any dialect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from encoder.backends.fidelity import MIN_INT8_COSINE, lowest_cosine
from encoder.encoder import Encoder, finish_vectors
from encoder.errors import InvalidInputError, NonFiniteVectorsError, one_line
from encoder.isolation import encode_each
from encoder.space import EmbeddingSpace, Role
from encoder.tokenizer import Tokenized
from serving.batcher import Batched, TokenBatcher
from serving.embed_request import Embedding, EmbedRequest, Truncate
from serving.errors import (
    OverloadedError,
    RequestTimeoutError,
    RequestTooLargeError,
    ServeError,
)
from serving.load import LoadMeter
from serving.settings import ServingSettings
from serving.vector_cache import VectorCache
from serving.warm_up import warm_up

if TYPE_CHECKING:
    from serving.metrics import Metrics

__all__ = ["EmbeddingService"]

_TOKENIZER_THREADS = 2
_INLINE_CHARACTERS = 200
"""Up to so many are tokenized where they are: a query takes 19 us, 200 characters take 45, and
handing it over takes the event loop 41 us and the request 108."""
_LARGE_CHARACTERS = 2**18
"""Of a request, beyond which it is tokenized in a thread for such ones: one word of 4 MB, which can
be cut nowhere, takes seconds, in which no timeout stops the thread."""
_CHARACTERS_PER_TOKEN = 8
"""More than English has in WordPiece (4 to 5): the guess before tokenizing errs on the low side."""
_BYTES_PER_TOKEN = 16
"""Of JSON, seldom more: the least tokens that a body is taken to have."""
_BYTES_OF_FIELDS = 16
"""Of JSON around a text, at least."""
_HEALTH_TEXT = "Is the model there?"


class EmbeddingService:
    """One model behind a queue.

    Args:
        encoder: The model.
        settings: Limits and what the endpoint serves.
        metrics: Is told of every request.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: ServingSettings,
        metrics: Metrics,
    ) -> None:
        self.encoder = encoder
        self.space = encoder.space
        self.load = LoadMeter(encoder.max_concurrent_tokens)
        self._settings = settings
        self._limits = settings.limits
        self._metrics = metrics
        self._tokenizing = ThreadPoolExecutor(_TOKENIZER_THREADS, thread_name_prefix="tokenizer")
        self._tokenizing_large = ThreadPoolExecutor(1, thread_name_prefix="large-tokenizer")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._batcher = TokenBatcher(
            partial(encode_each, encoder),
            thread=self._thread,
            # The encoder's own falls when memory runs out.
            batch_tokens=lambda: min(encoder.max_concurrent_tokens, self.load.batch_tokens),
            max_queued_tokens=self._limits.max_queued_tokens,
            max_queue_wait_s=self._limits.max_queue_wait_s,
            max_seq_length=encoder.space.max_seq_length,
            load=self.load,
        )
        self._spaces = {encoder.space.dimension: encoder.space}
        self._cache = VectorCache(settings.vector_cache_bytes)
        self._known_vector: npt.NDArray[np.float32] | None = None
        self._mismatch: str | None = None

    def check_room(self, body_bytes: int) -> None:
        """Refuse a request by its size alone, where reading it would only end in a refusal.

        Under overload this is all that most requests cost.

        Args:
            body_bytes: Of JSON.

        Raises:
            OverloadedError: Too many tokens wait.
        """
        longest = self.space.max_seq_length
        # A single long text is cut: of no body is more to be expected for certain than that.
        least = min(max(1, body_bytes // _BYTES_PER_TOKEN), longest)
        likely = max(0, body_bytes - _BYTES_OF_FIELDS) // _CHARACTERS_PER_TOKEN
        try:
            # Several texts are counted: they may wait as long as they take by themselves.
            self._batcher.admission.check_unread(least, likely if likely <= longest else 0)
        except OverloadedError:
            self.load.offered_unread(min(likely, self._limits.max_request_tokens))
            raise

    def check_count(self, count: int) -> None:
        """Refuse a request by the number of its inputs alone.

        Raises:
            RequestTooLargeError: There are more than are allowed.
        """
        limit = self._limits.max_inputs
        if count > limit:
            raise RequestTooLargeError(
                f"expected at most {limit} inputs, found {count}; send them in several requests"
            )

    async def embed(self, request: EmbedRequest) -> Embedding:
        """Embed a request's inputs.

        Raises:
            InvalidInputError: An input is not text, or too long for `truncate` none, or
                `dimensions` does not fit.
            RequestTooLargeError: The request has more inputs or tokens than are allowed, or than
                can be through in time.
            OverloadedError: Too many tokens wait.
            RequestTimeoutError: The vectors were not there in time.
            TextFailedError: An input makes the model raise.
            BackendError: The model fails for every text.
            ServeError: The service is closed, or its last check found other vectors.
        """
        self._batcher.check_open()
        if self._mismatch is not None:
            raise ServeError(self._mismatch)
        space = self._space_of(request.dimensions)
        if not request.inputs:
            raise InvalidInputError("expected at least one input, found none; send text")
        self.check_count(len(request.inputs))
        try:
            async with asyncio.timeout(self._limits.request_timeout_s):
                return await self._embed(request, space)
        except TimeoutError as error:
            raise RequestTimeoutError(
                f"expected vectors within {self._limits.request_timeout_s:g} s, found none; send "
                "fewer inputs at once, or ask the operator for more replicas"
            ) from error

    async def _embed(self, request: EmbedRequest, space: EmbeddingSpace) -> Embedding:
        tokenized, tokenize_s = await self._tokenize(request)
        self._check_tokens(request, tokenized)
        kept = self._cache.find(tokenized, request.role)
        missing = [place for place, vector in enumerate(kept) if vector is None]
        wanted = tokenized if len(missing) == len(kept) else tokenized.take(missing)
        batched = await self._encode(wanted, request.role)
        vectors = batched.vectors
        if wanted is not tokenized:
            computed = iter(vectors)
            vectors = np.array([next(computed) if v is None else v for v in kept])
        self._metrics.embedded(
            request.role,
            n_tokens=wanted.total_tokens,
            cached=len(kept) - len(missing),
            truncated=int(tokenized.truncated.sum()),
            tokenize_s=tokenize_s,
            queue_s=batched.queue_s,
            forward_s=batched.forward_s,
        )
        return Embedding(
            _cut(vectors, space),
            tokenized.n_tokens,
            tokenized.truncated,
            request.role,
            space,
            tokenize_s,
            batched.queue_s,
            batched.forward_s,
            len(kept) - len(missing),
        )

    async def _encode(self, tokenized: Tokenized, role: Role) -> Batched:
        """Have texts encoded, and keep their vectors."""
        if not len(tokenized):
            return Batched(np.zeros((0, self.space.dimension), np.float32), 0.0, 0.0)
        # Counted as it comes: what times out in the queue was wanted, too.
        self.load.offered(tokenized.total_tokens, len(tokenized))
        batched = await self._batcher.submit(tokenized, role)
        if self._mismatch is None:
            self._cache.keep(tokenized, role, batched.vectors)
        return batched

    async def check(self, *, waits: bool) -> None:
        """Run a forward, before whatever waits, as the readiness and health checks do.

        Where its vector is another one than when the model was warmed up, as a broken device
        makes it, nothing is embedded until a check passes.

        Args:
            waits: For a forward under way, too. Otherwise one under way is answer enough, unless
                the last forward or check went wrong.

        Raises:
            ServeError: The model did not answer with a vector, or with another one.
        """
        deadline_s = self._limits.request_timeout_s
        if self._batcher.forward_age_s > deadline_s:
            raise ServeError(f"not ready: a forward has not ended after {deadline_s:g} s")
        went_well = self._batcher.failure is None and self._mismatch is None
        if self._batcher.forward_age_s and went_well and not waits:
            return
        try:
            async with asyncio.timeout(deadline_s):
                found = await self._health_vector()
        except Exception as error:
            raise ServeError(f"not ready: a fixed text raised {one_line(error)}") from error
        known = found if self._known_vector is None else self._known_vector
        cosine = lowest_cosine(found, known)
        self._mismatch = None
        if cosine < MIN_INT8_COSINE:
            self._mismatch = (
                f"not ready: the vector of a fixed text has cosine {cosine:.4f} with its vector "
                f"when this replica started, expected {MIN_INT8_COSINE} or more; the device or its "
                "memory is broken, and nothing is embedded until that has passed"
            )
            self._cache.clear()  # since when, nobody knows
            raise ServeError(self._mismatch)

    async def _health_vector(self) -> npt.NDArray[np.float32]:
        tokenized = self.encoder.tokenize([_HEALTH_TEXT], Role.QUERY)
        batched = await self._batcher.submit(tokenized, Role.QUERY, is_admitted=True)
        return batched.vectors

    async def warm_up(self) -> None:
        """Prepare the shapes that short queries have, and measure a full forward."""
        self._known_vector = await self._health_vector()
        await warm_up(self.encoder, self._batcher, self._thread, self.load)

    async def close(self) -> None:
        """Wait for the forward under way and free the model."""
        await self._batcher.close()
        self._tokenizing.shutdown()
        self._tokenizing_large.shutdown()
        self.encoder.close()

    async def _tokenize(self, request: EmbedRequest) -> tuple[Tokenized, float]:
        # Under overload most requests end here, before they cost a tokenizer's time. What is being
        # tokenized counts as waiting, by a guess that decides nothing else.
        longest, count = self.space.max_seq_length, len(request.inputs)
        guess = sum(min(_least_tokens(entry), longest) for entry in request.inputs)
        try:
            self._batcher.admission.check_room(guess)
        except OverloadedError:
            self.load.offered(self.load.expected_tokens(count), count)
            raise
        started = time.monotonic()
        if _is_small(request.inputs):
            return self._tokens_of(request), time.monotonic() - started
        is_large = sum(map(len, request.inputs)) > _LARGE_CHARACTERS
        threads = self._tokenizing_large if is_large else self._tokenizing
        self.load.enter(guess)
        try:
            tokenized = await asyncio.get_running_loop().run_in_executor(
                threads, self._tokens_of, request
            )
        finally:
            self.load.leave(guess)
        return tokenized, time.monotonic() - started

    def _tokens_of(self, request: EmbedRequest) -> Tokenized:
        keep_end = request.truncate is Truncate.START
        if isinstance(request.inputs[0], str):
            texts = cast("Sequence[str]", request.inputs)
            return self.encoder.tokenize(texts, request.role, keep_end=keep_end)
        if not self._settings.accept_token_arrays:
            raise InvalidInputError(
                "expected text, found arrays of token ids, which another tokenizer may have made; "
                "send text (langchain: OpenAIEmbeddings(check_embedding_ctx_length=False)), or "
                "start the endpoint with --accept-token-arrays if its clients use this model's "
                "tokenizer"
            )
        rows = cast("Sequence[Sequence[int]]", request.inputs)
        return self.encoder.tokenize_ids(rows, request.role, keep_end=keep_end)

    def _check_tokens(self, request: EmbedRequest, tokenized: Tokenized) -> None:
        longest = self.space.max_seq_length
        if request.truncate is Truncate.NONE and tokenized.truncated.any():
            indices = np.flatnonzero(tokenized.truncated).tolist()
            raise InvalidInputError(
                f"expected inputs of at most {longest} tokens, found longer ones at {indices[:10]}"
                f"{', ...' if len(indices) > 10 else ''}; shorten them, or let them be truncated"
            )
        total, limit = tokenized.total_tokens, self._limits.max_request_tokens
        if total > limit:
            raise RequestTooLargeError(
                f"expected at most {limit} tokens in a request, found {total}; send the inputs in "
                "several requests"
            )
        limit_s, own_s = self._limits.request_timeout_s, self.load.seconds_for(total)
        # It would fail in the end, and others would have waited for it. Once nothing has told the
        # rate for as long, it is tried: the rate may be wrong, and is learned from it.
        if own_s > limit_s and self.load.measured_within(limit_s):
            raise RequestTooLargeError(
                f"expected a request that takes at most {limit_s:g} s, found {total} tokens, which "
                f"take about {own_s:.0f} s here; send the inputs in several requests"
            )

    def _space_of(self, dimensions: int | None) -> EmbeddingSpace:
        if dimensions is None:
            return self.space
        if dimensions not in self._spaces:
            if not 1 <= dimensions <= self.space.dimension:
                raise InvalidInputError(
                    f"dimensions: expected 1 to {self.space.dimension}, found {dimensions}"
                )
            if self._settings.corpus is not None:
                raise InvalidInputError(
                    f"dimensions: expected {self.space.dimension}, the corpus' own, found "
                    f"{dimensions}: such vectors could not be compared with it; leave it out"
                )
            self._spaces[dimensions] = replace(
                self.space, truncate_dim=dimensions, dimension=dimensions
            )
        return self._spaces[dimensions]


def _is_small(inputs: Sequence[str] | Sequence[Sequence[int]]) -> bool:
    """Whether tokenizing takes less of the event loop than having it done in a thread."""
    return len(inputs) == 1 and len(inputs[0]) <= _INLINE_CHARACTERS


def _least_tokens(entry: str | Sequence[int]) -> int:
    """Return a guess of an input's tokens, rather too low; ids are counted."""
    return len(entry) // _CHARACTERS_PER_TOKEN + 1 if isinstance(entry, str) else len(entry)


def _cut(vectors: npt.NDArray[np.float32], space: EmbeddingSpace) -> npt.NDArray[np.float32]:
    """Return the leading dimensions, unit length again where the space asks for it."""
    if vectors.shape[1] == space.dimension:
        return vectors
    try:
        return finish_vectors(vectors, space)
    except NonFiniteVectorsError as error:
        raise InvalidInputError(
            f"dimensions: the first {space.dimension} are all zero for an input; ask for more"
        ) from error
