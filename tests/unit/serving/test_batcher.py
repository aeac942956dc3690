"""The queue in front of the encoder, with a fake encoder: no Ray, no HTTP, no model."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.space import Role
from encoder.tokenizer import Tokenized
from serving.batcher import Batched
from serving.errors import OverloadedError, ServeError
from serving.load import LoadMeter
from support.batchers import (
    BUDGET,
    MANY_TOKENS,
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

QUERY, DOCUMENT = Role.QUERY, Role.DOCUMENT


def test_a_lone_request_is_encoded_at_once_without_a_timer() -> None:
    async def scenario() -> None:
        def no_timer(*_: object, **__: object) -> None:
            pytest.fail("a timer was set")

        forwards = Forwards()
        batcher = batcher_of(forwards)
        texts = texts_of(3, 2)
        loop = asyncio.get_running_loop()
        loop.call_at = no_timer  # type: ignore[method-assign, assignment]
        try:
            batched = await batcher.submit(texts, DOCUMENT)
        finally:
            del loop.call_at  # type: ignore[method-assign]
        np.testing.assert_array_equal(batched.vectors, vectors_of(texts, DOCUMENT))
        assert forwards.calls == [names_of(texts)]
        assert batched.queue_s >= 0
        assert batched.forward_s > 0
        await batcher.close()

    run(scenario())


def test_requests_that_arrive_while_the_encoder_works_share_the_next_forward() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards)
        first, *others = (texts_of(4) for _ in range(5))
        with forwards.held_up():
            tasks = [sent(batcher, first)]
            await forwards.begun(1)
            tasks += [sent(batcher, other) for other in others]
            await queued()
        await asyncio.gather(*tasks)
        assert forwards.calls == [names_of(first), [names_of(other)[0] for other in others]]
        await batcher.close()

    run(scenario())


def test_both_roles_share_a_forward_and_each_text_has_the_vector_of_its_own() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards)
        texts = texts_of(2)
        with forwards.held_up():
            first = sent(batcher, texts_of(1))
            await forwards.begun(1)
            as_query, as_document = sent(batcher, texts, QUERY), sent(batcher, texts, DOCUMENT)
            await queued()
        await first
        np.testing.assert_array_equal((await as_query).vectors, vectors_of(texts, QUERY))
        np.testing.assert_array_equal((await as_document).vectors, vectors_of(texts, DOCUMENT))
        assert forwards.roles[1:] == [[QUERY, DOCUMENT]]
        await batcher.close()

    run(scenario())


requests = st.lists(
    st.tuples(
        st.lists(st.integers(1, MAX_SEQ_LENGTH), min_size=1, max_size=12),
        st.sampled_from(Role),
        st.integers(0, 12),
    ),
    min_size=1,
    max_size=12,
)
"""Lengths of a request's texts, its role, and how many turns of the loop it comes later."""


@settings(deadline=None, max_examples=150)
@given(requests=requests, budget=st.integers(1, 400))
def test_forwards_keep_to_the_budget_and_every_text_is_encoded_once_in_its_place(
    requests: list[tuple[list[int], Role, int]], budget: int
) -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards, budget=budget)
        given_texts = [texts_of(*lengths) for lengths, _, _ in requests]

        async def after(turns: int, texts: Tokenized, role: Role) -> Batched:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await batcher.submit(texts, role)

        answers = await asyncio.gather(
            *(
                after(turns, texts, role)
                for texts, (_, role, turns) in zip(given_texts, requests, strict=True)
            )
        )
        for answer, texts, (_, role, _) in zip(answers, given_texts, requests, strict=True):
            np.testing.assert_array_equal(answer.vectors, vectors_of(texts, role))
        encoded = [name for call in forwards.calls for name in call]
        assert sorted(encoded) == [name for texts in given_texts for name in names_of(texts)]
        for costs in forwards.costs:
            assert sum(costs) <= budget or len(costs) == 1
        await batcher.close()

    run(scenario())


def test_a_busy_event_loop_does_not_keep_the_encoder_waiting() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards)
        with forwards.held_up():
            first = sent(batcher, texts_of(4))
            await forwards.begun(1)
            second = sent(batcher, texts_of(4))
            await queued()
        deadline = time.monotonic() + 20
        while len(forwards.calls) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)  # noqa: ASYNC251 - the event loop does something else
        assert len(forwards.calls) == 2
        assert not first.done()
        await asyncio.gather(first, second)
        await batcher.close()

    run(scenario())


def test_a_budget_that_falls_is_kept_from_then_on() -> None:
    async def scenario() -> None:
        forwards, budgets = Forwards(), [32, 8, 8, 8, 8]
        batcher = batcher_of(
            forwards, budget=lambda: budgets.pop(0) if len(budgets) > 1 else budgets[0]
        )
        await batcher.submit(texts_of(*[4] * 14), DOCUMENT)
        assert [sum(costs) for costs in forwards.costs] == [32, 8, 8, 8]
        await batcher.close()

    run(scenario())


def test_a_small_request_does_not_wait_for_the_whole_of_a_large_one() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards)
        large, small = texts_of(*[4] * 100), texts_of(4)
        with forwards.held_up():
            first = sent(batcher, large)
            await forwards.begun(1)
            second = sent(batcher, small)
            await queued()
        await second
        assert names_of(small)[0] in forwards.calls[1]
        batched = await first
        assert names_of(large)[-1] in forwards.calls[-1]
        assert len(forwards.calls) > 10
        np.testing.assert_array_equal(batched.vectors, vectors_of(large, DOCUMENT))
        assert sum(names_of(small)[0] in call for call in forwards.calls) == 1
        await batcher.close()

    run(scenario())


def test_a_small_request_is_not_made_to_wait_for_a_forward_that_a_large_one_fills() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards, budget=200)
        large, small = texts_of(*[4] * 150), [texts_of(4) for _ in range(3)]
        with forwards.held_up():
            first = sent(batcher, large)
            await forwards.begun(1)
            others = [sent(batcher, texts) for texts in small]
            await queued()
        await asyncio.gather(first, *others)
        # Alone it fills a forward; then they have one to themselves, and it a quarter, once.
        assert [sum(costs) for costs in forwards.costs[:4]] == [200, 3 * 4, 13 * 4, 200]
        await batcher.close()

    run(scenario())


@pytest.mark.parametrize("length", [4, 30, BUDGET, 100], ids="tokens={}".format)
def test_a_large_request_goes_on_however_many_small_ones_come(length: int) -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards)
        large = texts_of(*[length] * 20)

        async def client() -> None:
            for _ in range(200):
                if finished.is_set():
                    return
                await batcher.submit(texts_of(1), QUERY)

        finished = asyncio.Event()
        clients = [asyncio.create_task(client()) for _ in range(4 * BUDGET)]
        await forwards.begun(3)
        batched = await batcher.submit(large, DOCUMENT)
        finished.set()
        np.testing.assert_array_equal(batched.vectors, vectors_of(large, DOCUMENT))
        names, a_forward = names_of(large), max(1, BUDGET // 4 // length)
        first, last = (
            next(number for number, call in enumerate(forwards.calls) if name in call)
            for name in (names[0], names[-1])
        )
        # Of every second forward a quarter, or one text.
        assert last - first <= 2 * len(large) / a_forward
        await asyncio.gather(*clients)
        await batcher.close()

    run(scenario())


def test_a_cancelled_request_that_waits_is_not_encoded_and_leaves_its_room_to_others() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, load=load, max_queued_tokens=20)
        with forwards.held_up():
            first = sent(batcher, texts_of(4))
            await forwards.begun(1)
            given_up = sent(batcher, texts_of(16))
            await queued()
            with pytest.raises(OverloadedError):
                await batcher.submit(texts_of(16), QUERY)
            given_up.cancel()
            await queued()
            assert load.queued_tokens == 4
            third_texts = texts_of(16)
            third = sent(batcher, third_texts)
            await queued()
        await asyncio.gather(first, third)
        assert forwards.calls[1:] == [names_of(third_texts)]
        assert given_up.cancelled()
        assert load.queued_tokens == 0
        await batcher.close()

    run(scenario())


def test_a_request_that_is_cancelled_under_way_does_not_disturb_its_neighbours() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, load=load)
        neighbours, given_up = [texts_of(2), texts_of(3, 1)], texts_of(2, 2)
        await batcher.submit(texts_of(1), QUERY)
        with forwards.held_up():
            tasks = [sent(batcher, texts) for texts in (neighbours[0], given_up, neighbours[1])]
            await forwards.begun(2)
            tasks[1].cancel()
            await queued()
        for task, texts in zip((tasks[0], tasks[2]), neighbours, strict=True):
            np.testing.assert_array_equal((await task).vectors, vectors_of(texts, DOCUMENT))
        await batcher.close()
        assert set(names_of(given_up)) < set(forwards.calls[1]), "it was not under way"
        assert tasks[1].cancelled()
        assert load.queued_tokens == 0

    run(scenario())


def test_of_a_large_request_that_is_cancelled_the_rest_is_not_encoded() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, load=load)
        with forwards.held_up():
            task = sent(batcher, texts_of(*[2] * 40))
            await forwards.begun(1)
            task.cancel()
            await queued()
        await batcher.close()
        assert task.cancelled()
        assert load.queued_tokens == 0
        assert len(forwards.calls) == 1

    run(scenario())


def test_requests_behind_one_that_is_cancelled_as_the_forward_ends_are_answered() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards)
        behind = texts_of(*[BUDGET] * 2)
        with forwards.held_up():
            gone = sent(batcher, texts_of(*[4] * 40))
            await forwards.begun(1)
            waiting = sent(batcher, behind)
            await queued()
        # The encoder's thread has ended forwards that the loop hears of after `gone` has gone.
        deadline = time.monotonic() + 20
        while len(forwards.calls) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)  # noqa: ASYNC251
        gone.cancel()
        np.testing.assert_array_equal((await waiting).vectors, vectors_of(behind, DOCUMENT))
        await batcher.close()

    run(scenario())


def test_the_age_of_a_forward_is_known_while_it_runs() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards)
        assert batcher.forward_age_s == 0
        with forwards.held_up():
            first = sent(batcher, texts_of(1))
            await forwards.begun(1)
            await asyncio.sleep(0.01)
            assert batcher.forward_age_s > 0.005
        await first
        assert batcher.forward_age_s == 0
        await batcher.close()

    run(scenario())


def test_closing_waits_for_the_forward_under_way_and_cancels_what_waits() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, load=load)
        with forwards.held_up():
            under_way = sent(batcher, texts_of(1))
            await forwards.begun(1)
            waiting = sent(batcher, texts_of(1))
            await queued()
            closing = asyncio.create_task(batcher.close())
            await asyncio.sleep(0.02)
            assert not closing.done()
        await closing
        assert len((await under_way).vectors) == 1
        assert forwards.encoder.forwards == [1]
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert load.queued_tokens == 0

    run(scenario())


def test_closing_an_idle_batcher_returns() -> None:
    run(batcher_of(Forwards()).close())


def test_a_closed_batcher_refuses_instead_of_letting_wait() -> None:
    async def scenario() -> None:
        load = LoadMeter(BUDGET)
        batcher = batcher_of(Forwards(), load=load)
        await batcher.close()
        with pytest.raises(ServeError, match="stopping"):
            await batcher.submit(texts_of(1), QUERY)
        assert load.queued_tokens == 0

    run(scenario())


def test_what_forwards_took_is_the_measure_of_capacity() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, load=load)
        task = sent(batcher, texts_of(*[4] * 8))
        await forwards.begun(1)
        # The time until the event loop hears of a forward's end is no part of it.
        time.sleep(2)  # noqa: ASYNC251
        assert (await task).forward_s < 1.5
        assert load.tokens_per_s > 32 / 1.5
        assert load.padding_waste == pytest.approx(0.5)  # the fake encoder says twice the tokens
        await batcher.close()

    run(scenario())


def test_forwards_are_measured_by_the_budget_that_they_had_not_by_one_that_fell() -> None:
    shares = []

    class Meter(LoadMeter):
        def encoded(self, n_tokens: int, padded_tokens: int, seconds: float, share: float) -> None:
            shares.append(share)

    async def scenario() -> None:
        batcher = batcher_of(Forwards(), budget=BUDGET, load=Meter(MANY_TOKENS))  # memory ran out
        for n_texts in (8, 2):
            await batcher.submit(texts_of(*[4] * n_texts), DOCUMENT)
        await batcher.close()

    run(scenario())
    assert shares == [1.0, 0.25]


def test_the_wait_of_every_request_is_told_to_the_autoscaler_also_where_it_gave_up() -> None:
    waits = []

    class Meter(LoadMeter):
        def waited(self, seconds: float) -> None:
            waits.append(seconds)

    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards, load=Meter(BUDGET))
        with forwards.held_up():
            first = sent(batcher, texts_of(1))
            await forwards.begun(1)
            given_up = sent(batcher, texts_of(1))
            await queued()
            given_up.cancel()
            await queued()
            assert len(waits) == 1
        batched = await first
        assert waits[1:] == [batched.queue_s]
        await batcher.close()

    run(scenario())
