"""What fails in the queue in front of the encoder, and whom it does not concern."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import BackendError
from encoder.isolation import EncodedEach
from encoder.space import Role
from encoder.tokenizer import Tokenized
from serving.batcher import TokenBatcher
from serving.errors import TextFailedError
from serving.load import LoadMeter
from support.batchers import (
    BUDGET,
    MAX_SEQ_LENGTH,
    Forwards,
    batcher_of,
    names_of,
    queued,
    run,
    sent,
    texts_of,
    vectors_of,
)
from support.fake_encoder import FakeEncoder

QUERY, DOCUMENT = Role.QUERY, Role.DOCUMENT


def poison() -> Tokenized:
    return FakeEncoder().tokenize(["poison"], DOCUMENT)


def test_a_text_that_makes_the_model_raise_fails_its_own_request_only() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, load=load)
        before, after = texts_of(2), texts_of(3)
        with forwards.held_up():
            first = sent(batcher, texts_of(1))
            await forwards.begun(1)
            good = [sent(batcher, before)]
            bad = sent(batcher, Tokenized.join([texts_of(2), poison(), texts_of(2)]))
            good.append(sent(batcher, after))
            await queued()
        await first
        with pytest.raises(TextFailedError, match=r"cannot embed input 1;"):
            await bad
        for task, texts in zip(good, (before, after), strict=True):
            np.testing.assert_array_equal((await task).vectors, vectors_of(texts, DOCUMENT))
        assert batcher.failure is None
        assert load.queued_tokens == 0
        await batcher.close()

    run(scenario())


def test_the_rest_of_a_request_whose_text_failed_is_left_out_and_the_next_are_answered() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards)
        rest, behind = texts_of(*[4] * 40), texts_of(*[BUDGET] * 3)
        with forwards.held_up():
            bad = sent(batcher, Tokenized.join([poison(), rest]))
            await forwards.begun(1)
            waiting = sent(batcher, behind)
            await queued()
        with pytest.raises(TextFailedError, match="cannot embed input 0"):
            await bad
        np.testing.assert_array_equal((await waiting).vectors, vectors_of(behind, DOCUMENT))
        encoded = {name for call in forwards.calls[1:] for name in call}
        assert not encoded & set(names_of(rest))
        await batcher.close()

    run(scenario())


async def assert_works_again(batcher: TokenBatcher) -> None:
    texts = texts_of(5)
    batched = await batcher.submit(texts, QUERY)
    np.testing.assert_array_equal(batched.vectors, vectors_of(texts, QUERY))
    assert batcher.failure is None


def broken() -> None:
    raise RuntimeError("device lost")


def test_a_backend_that_fails_for_every_text_fails_all_requests_until_a_forward_is_good() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, load=load)
        assert batcher.failure is None
        forwards.encoder.on_forward = broken
        with forwards.held_up():
            tasks = [sent(batcher, texts_of(*[4] * 20))]
            await forwards.begun(1)
            tasks += [sent(batcher, texts_of(BUDGET, BUDGET)), sent(batcher, texts_of(1))]
            await queued()
        for task in tasks:
            with pytest.raises(BackendError, match=r"fails for every text.*device lost"):
                await task
        assert isinstance(batcher.failure, BackendError)
        assert load.queued_tokens == 0

        forwards.encoder.on_forward = lambda: None
        await assert_works_again(batcher)
        await batcher.close()

    run(scenario())


@pytest.mark.parametrize("good_forwards", [0, 1])
def test_a_defect_between_two_forwards_fails_what_waits_and_is_not_lost(good_forwards: int) -> None:
    async def scenario() -> None:
        budgets = count()

        def budget() -> int:
            if next(budgets) == good_forwards:
                raise ZeroDivisionError("no rate")
            return BUDGET

        batcher = batcher_of(Forwards(), budget=budget)
        for each in [sent(batcher, texts_of(BUDGET, BUDGET)) for _ in range(2)]:
            with pytest.raises(BackendError, match="ZeroDivisionError: no rate"):
                await each
        assert "ZeroDivisionError: no rate" in str(batcher.failure)

        await assert_works_again(batcher)
        await batcher.close()

    run(scenario())


def test_vectors_that_cannot_be_handed_out_fail_whose_they_are_and_nobody_after_them() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(
            lambda texts, roles: replace(forwards(texts, roles), vectors=np.zeros((1, 4))),
            load=load,
        )
        with pytest.raises(BackendError, match="IndexError"):
            await batcher.submit(texts_of(3, 3), QUERY)
        assert load.queued_tokens == 0
        assert len((await batcher.submit(texts_of(3), QUERY)).vectors) == 1
        await batcher.close()

    run(scenario())


class Panic(BaseException):
    """As compiled Rust code raises it."""


def test_a_panic_of_compiled_code_fails_its_request_and_the_encoder_goes_on() -> None:
    async def scenario() -> None:
        forwards, panics = Forwards(), [True]

        def encode(tokenized: Tokenized, roles: Sequence[Role]) -> EncodedEach:
            if panics.pop() if panics else False:
                raise Panic("called `Option::unwrap()` on a `None` value")
            return forwards(tokenized, roles)

        batcher = batcher_of(encode)
        with pytest.raises(BackendError, match="Panic: called"):
            await batcher.submit(texts_of(3), QUERY)
        await assert_works_again(batcher)
        await batcher.close()

    run(scenario())


def test_an_error_that_nobody_foresaw_fails_requests_as_a_backends_does() -> None:
    async def scenario() -> None:
        def defective(tokenized: Tokenized, roles: Sequence[Role]) -> EncodedEach:
            raise ZeroDivisionError("who would have thought")

        batcher = batcher_of(defective)
        for _ in range(2):
            with pytest.raises(BackendError, match="ZeroDivisionError: who would have thought"):
                await batcher.submit(texts_of(3), QUERY)
        assert isinstance(batcher.failure, BackendError)
        await batcher.close()

    run(scenario())


def test_what_fails_before_the_forward_fails_its_request_and_nobody_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        batcher = batcher_of(Forwards())
        with monkeypatch.context() as patch:
            patch.setattr(Tokenized, "take", lambda *_: 1 / 0)
            with pytest.raises(BackendError, match="ZeroDivisionError"):
                await batcher.submit(texts_of(3), QUERY)
        assert len((await batcher.submit(texts_of(3), QUERY)).vectors) == 1
        await batcher.close()

    run(scenario())


def test_the_search_for_a_text_that_fails_is_no_measure_of_capacity() -> None:
    async def scenario() -> None:
        load = LoadMeter(BUDGET)
        batcher = batcher_of(Forwards(), load=load)
        await batcher.submit(texts_of(*[4] * 8), DOCUMENT)
        rate, waste = load.tokens_per_s, load.padding_waste
        with pytest.raises(TextFailedError):
            await batcher.submit(Tokenized.join([poison(), texts_of(*[4] * 7)]), DOCUMENT)
        assert (load.tokens_per_s, load.padding_waste) == (rate, waste)
        await batcher.close()

    run(scenario())


@dataclass(frozen=True)
class Arrival:
    """A request, and what becomes of it.

    Attributes:
        lengths: Tokens of each text.
        role: Of all of them.
        after: Milliseconds, about.
        gives_up_after: So many later; None waits.
        bad: Which text makes the model raise, if there are so many.
    """

    lengths: list[int]
    role: Role
    after: int
    gives_up_after: int | None
    bad: int | None

    @property
    def is_bad(self) -> bool:
        return self.bad is not None and self.bad < len(self.lengths)

    def texts(self) -> Tokenized:
        texts = [texts_of(length) for length in self.lengths]
        if self.is_bad:
            texts[self.bad] = poison()
        return Tokenized.join(texts)


arrivals = st.lists(
    st.builds(
        Arrival,
        lengths=st.lists(st.integers(1, MAX_SEQ_LENGTH), min_size=1, max_size=12),
        role=st.sampled_from(Role),
        after=st.integers(0, 8),
        gives_up_after=st.none() | st.none() | st.integers(0, 8),
        bad=st.none() | st.none() | st.integers(0, 11),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=100)
@given(
    arrivals=arrivals,
    budgets=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    panics=st.sets(st.integers(1, 6), max_size=2),
    closes_after=st.none() | st.integers(0, 16),
)
def test_whoever_fails_gives_up_or_closes_the_others_get_their_own_vectors_and_nothing_stays(
    arrivals: list[Arrival], budgets: list[int], panics: set[int], closes_after: int | None
) -> None:
    async def scenario() -> None:
        forwards, load, budget = Forwards(), LoadMeter(BUDGET), cycle(budgets)

        def encode(tokenized: Tokenized, roles: Sequence[Role]) -> EncodedEach:
            time.sleep(0.0005)  # so that some wait
            encoded = forwards(tokenized, roles)
            if len(forwards.calls) in panics:
                raise Panic("of compiled code")
            return encoded

        batcher = batcher_of(encode, budget=lambda: next(budget), load=load)
        texts = [arrival.texts() for arrival in arrivals]
        tasks = [
            asyncio.create_task(_arrive(batcher, *given))
            for given in zip(arrivals, texts, strict=True)
        ]
        if closes_after is not None:
            await _milliseconds(closes_after)
            await batcher.close()
        await asyncio.wait(tasks)
        may_fail = bool(panics) and len(forwards.calls) >= min(panics)
        for arrival, text, task in zip(arrivals, texts, tasks, strict=True):
            error = _error(task)
            if error is None:
                expected = vectors_of(text, arrival.role)
                np.testing.assert_array_equal(task.result(), expected)
            else:
                assert _may_have(error, arrival, closes_after is not None, may_fail), repr(error)
        assert load.queued_tokens == 0
        if closes_after is None:
            panics.clear()
            await assert_works_again(batcher)
            await batcher.close()

    run(scenario())


async def _arrive(batcher: TokenBatcher, arrival: Arrival, texts: Tokenized) -> np.ndarray:
    await _milliseconds(arrival.after)
    task = sent(batcher, texts, arrival.role)
    if arrival.gives_up_after is not None:
        await _milliseconds(arrival.gives_up_after)
        task.cancel()
    return (await task).vectors


def _error(task: asyncio.Task[np.ndarray]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def _may_have(error: BaseException, arrival: Arrival, is_closed: bool, may_fail: bool) -> bool:
    """Whether a request may have come to this."""
    if isinstance(error, TextFailedError):
        return arrival.is_bad and f"cannot embed input {arrival.bad};" in str(error)
    if isinstance(error, asyncio.CancelledError):
        return is_closed or arrival.gives_up_after is not None
    return may_fail if isinstance(error, BackendError) else is_closed


async def _milliseconds(count: int) -> None:
    await asyncio.sleep(count / 1e3)
