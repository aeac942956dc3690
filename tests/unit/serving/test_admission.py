"""What is refused for load, by the tokens that wait and by how long they would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from encoder.isolation import EncodedEach
from encoder.space import Role
from encoder.tokenizer import Tokenized
from serving.errors import OverloadedError
from serving.load import LoadMeter
from support.batchers import (
    BUDGET,
    MANY_TOKENS,
    Forwards,
    batcher_of,
    queued,
    run,
    sent,
    texts_of,
)

QUERY, DOCUMENT = Role.QUERY, Role.DOCUMENT


def test_a_request_beyond_the_queues_limit_is_refused_at_once_and_told_when_to_come_again() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, load=load, max_queued_tokens=10)
        await batcher.submit(texts_of(4), QUERY)
        load.tokens_per_s = 0.4
        with forwards.held_up():
            fits = [sent(batcher, texts_of(4)), sent(batcher, texts_of(6))]
            await forwards.begun(2)
            await queued()
            with pytest.raises(OverloadedError, match=r"10 tokens wait and 10 may.* has 3") as told:
                await batcher.submit(texts_of(3), QUERY)
            assert told.value.retry_after_s == 8  # 3 too many, at one in 2.5 seconds
            with pytest.raises(OverloadedError) as told:
                batcher.admission.check_room(100)
            assert told.value.retry_after_s == 25  # alone it is taken
            assert load.queued_tokens == 10
        await asyncio.gather(*fits)
        await batcher.close()

    run(scenario())


@pytest.mark.parametrize("tokens_per_s", [0.0, 1e9])
def test_the_time_to_come_again_is_at_least_a_second(tokens_per_s: float) -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        load.tokens_per_s = tokens_per_s
        batcher = batcher_of(forwards, load=load, max_queued_tokens=1)
        with forwards.held_up():
            first = sent(batcher, texts_of(1))
            await forwards.begun(1)
            with pytest.raises(OverloadedError) as told:
                await batcher.submit(texts_of(1), QUERY)
        assert told.value.retry_after_s == 1
        await first
        await batcher.close()

    run(scenario())


def test_a_small_request_is_not_refused_for_the_tokens_of_large_ones() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, load=load, max_queued_tokens=400)
        await batcher.submit(texts_of(4), QUERY)
        with forwards.held_up():
            tasks = [sent(batcher, texts_of(*[4] * 100))]
            await forwards.begun(2)
            await queued()
            assert load.queued_tokens == 400
            with pytest.raises(OverloadedError, match="400 tokens wait and 400 may"):
                await batcher.submit(texts_of(*[4] * 10), DOCUMENT)
            tasks += [sent(batcher, texts_of(8)) for _ in range(50)]
            await queued()
            with pytest.raises(OverloadedError, match="400 tokens wait and 400 may"):
                await batcher.submit(texts_of(8), QUERY)
        await asyncio.gather(*tasks)
        assert load.queued_tokens == 0
        await batcher.close()

    run(scenario())


def test_what_is_large_is_judged_alike_before_and_in_the_queue() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(400)
        batcher = batcher_of(forwards, budget=400, load=load, max_queued_tokens=400)
        await batcher.submit(texts_of(4), QUERY)
        with forwards.held_up():
            tasks = [sent(batcher, texts_of(4))]
            await forwards.begun(2)
            # 99 tokens are less than a quarter of a forward; with padding they are more.
            tasks += [sent(batcher, texts_of(33, 33, 33)) for _ in range(4)]
            await queued()
            assert sum(forwards.padded(33) for _ in range(3)) > 100
            with pytest.raises(OverloadedError, match="400 tokens wait and 400 may"):
                await batcher.submit(texts_of(33, 33, 33), QUERY)
        await asyncio.gather(*tasks)
        await batcher.close()

    run(scenario())


def test_there_is_room_for_others_as_the_texts_of_a_large_request_are_answered() -> None:
    async def scenario() -> None:
        forwards, load, may_go_on = Forwards(), LoadMeter(BUDGET), threading.Event()

        def encode(texts: Tokenized, roles: Sequence[Role]) -> EncodedEach:
            encoded = forwards(texts, roles)
            assert len(forwards.calls) < 5 or may_go_on.wait(20)
            return encoded

        batcher = batcher_of(encode, load=load, max_queued_tokens=400)
        first = sent(batcher, texts_of(*[4] * 100))
        await forwards.begun(5)
        await queued()
        assert load.queued_tokens == 400 - 4 * BUDGET
        second = sent(batcher, texts_of(*[4] * 20))
        await queued()
        may_go_on.set()
        assert len((await second).vectors) == 20
        assert len((await first).vectors) == 100
        assert load.queued_tokens == 0
        await batcher.close()

    run(scenario())


def test_a_request_of_any_size_is_taken_where_nothing_waits() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards, max_queued_tokens=1)
        for _ in range(2):
            assert len((await batcher.submit(texts_of(*[8] * 9), DOCUMENT)).vectors) == 9
        await batcher.close()

    run(scenario())


def test_a_request_that_would_wait_too_long_is_refused_and_one_that_shares_is_not() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        load.tokens_per_s = 10.0
        batcher = batcher_of(forwards, load=load, max_queue_wait_s=1.0)
        with forwards.held_up():
            first = sent(batcher, texts_of(1))
            await forwards.begun(1)
            large = sent(batcher, texts_of(*[4] * 100))
            await queued()
            # A part of a forward, 8 of the large one's 400 tokens, stands before a small one.
            small = [sent(batcher, texts_of(4)) for _ in range(2)]
            await queued()
            with pytest.raises(
                OverloadedError, match=r"would wait 1\.7 s for 16 others and"
            ) as told:
                await batcher.submit(texts_of(4), QUERY)
            assert told.value.retry_after_s == 2
            # 410 may wait for 408: hardly longer than they take by themselves.
            batcher.admission.check_room(410)
        await asyncio.gather(first, large, *small)
        await batcher.close()

    run(scenario())


def test_a_request_waits_for_what_is_left_of_the_forward_under_way() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(2 * BUDGET)
        load.tokens_per_s = 100.0
        batcher = batcher_of(forwards, budget=2 * BUDGET, load=load, max_queue_wait_s=0.02)
        with forwards.held_up():
            working = sent(batcher, texts_of(*[4] * 10))  # 0.4 s, as far as anybody knows
            await forwards.begun(1)
            with pytest.raises(OverloadedError, match=r"wait 0\.1 s for 0 others and") as told:
                batcher.admission.check_room(1)
            assert told.value.retry_after_s == 1
            with pytest.raises(OverloadedError, match="request of 1 was refused"):
                batcher.admission.check_unread(1, 1)
            batcher.admission.check_room(11)  # may wait longer: it takes longer
            await asyncio.sleep(0.4)
            batcher.admission.check_unread(1, 1)
            batcher.admission.check_room(1)
        await working
        await batcher.close()

    run(scenario())


@pytest.mark.parametrize(
    ("tokens_per_s", "most_waiting"),
    [
        (10_000.0, 500),  # 0.15 s: what is under way may take 0.1, 500 tokens take 0.05
        (1_000.0, 668),  # one and a half forwards of 512 tokens: 0.768 s, less 0.1
    ],
)
def test_by_default_one_waits_no_longer_than_for_a_forward_and_a_half(
    tokens_per_s: float, most_waiting: int
) -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(MANY_TOKENS)
        load.tokens_per_s = tokens_per_s
        batcher = batcher_of(forwards, budget=MANY_TOKENS, load=load, max_queue_wait_s=None)
        with forwards.held_up():
            tasks = [sent(batcher, texts_of(*[100] * 100))]
            await forwards.begun(1)
            tasks += [sent(batcher, texts_of(4)) for _ in range(most_waiting // 4 - 1)]
            await queued()
            batcher.admission.check_room(4)
            tasks += [sent(batcher, texts_of(4)) for _ in range(3)]
            await queued()
            with pytest.raises(OverloadedError, match="more than they take by themselves"):
                batcher.admission.check_room(4)
        await asyncio.gather(*tasks)
        await batcher.close()

    run(scenario())


def test_a_long_forward_alone_refuses_nobody() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        load.tokens_per_s = 1.0
        batcher = batcher_of(forwards, load=load, max_queue_wait_s=0.3)
        with forwards.held_up():
            working = sent(batcher, texts_of(30))  # half a minute
            await forwards.begun(1)
            batcher.admission.check_room(4)
        await working
        await batcher.close()

    run(scenario())


def test_what_nobody_has_counted_is_refused_as_its_like_was_until_the_queue_moves() -> None:
    async def scenario() -> None:
        forwards, load = Forwards(), LoadMeter(BUDGET)
        batcher = batcher_of(forwards, max_queue_wait_s=1.0, load=load)
        load.tokens_per_s = 10.0
        batcher.admission.check_unread(1, 1000)
        with forwards.held_up():
            tasks = [sent(batcher, texts_of(1))]
            await forwards.begun(1)
            tasks += [sent(batcher, texts_of(4)) for _ in range(4)]
            await queued()
            batcher.admission.check_unread(1, 4)  # behind 16 tokens, but nobody was refused yet
            for n_tokens in (5, 4, 5):
                with pytest.raises(OverloadedError) as counted:
                    batcher.admission.check_room(n_tokens)
            for likely in (4, 5, 16):
                with pytest.raises(OverloadedError, match="request of 4 was refused") as unread:
                    batcher.admission.check_unread(1, likely)
                assert unread.value.retry_after_s == counted.value.retry_after_s
            batcher.admission.check_unread(1, 3)
            batcher.admission.check_unread(1, 17)  # may wait longer: it takes longer
            tasks.pop().cancel()
            await queued()
            batcher.admission.check_unread(1, 4)
        await asyncio.gather(*tasks)
        await batcher.close()

    run(scenario())


def test_what_nobody_has_counted_is_refused_where_even_its_fewest_tokens_overfill_the_queue() -> (
    None
):
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards, max_queued_tokens=10)
        batcher.admission.check_unread(100, 100)
        with forwards.held_up():
            task = sent(batcher, texts_of(8))
            await forwards.begun(1)
            batcher.admission.check_unread(2, 2)
            with pytest.raises(OverloadedError, match="8 tokens wait and 10 may"):
                batcher.admission.check_unread(3, 3)
            with pytest.raises(OverloadedError, match="request of 3 was refused"):
                batcher.admission.check_unread(1, 9)
        await task
        batcher.admission.check_unread(3, 3)
        await batcher.close()

    run(scenario())


def test_a_refusal_is_forgotten_where_nothing_waits() -> None:
    load = LoadMeter(BUDGET)
    batcher = batcher_of(Forwards(), max_queued_tokens=10, load=load)
    load.enter(10)  # as texts do that are being tokenized
    with pytest.raises(OverloadedError):
        batcher.admission.check_room(5)
    load.leave(10)
    batcher.admission.check_unread(5, 5)


def test_a_health_check_is_taken_however_many_wait() -> None:
    async def scenario() -> None:
        forwards = Forwards()
        batcher = batcher_of(forwards, max_queued_tokens=1)
        with forwards.held_up():
            first = sent(batcher, texts_of(1))
            await forwards.begun(1)
            check = asyncio.create_task(batcher.submit(texts_of(4), QUERY, is_admitted=True))
            await queued()
        await asyncio.gather(first, check)
        await batcher.close()

    run(scenario())
