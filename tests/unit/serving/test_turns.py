"""What is refused lets what was accepted go first, and everybody goes on."""

from __future__ import annotations

import asyncio

from serving.turns import Turns


def test_those_who_wait_go_on_in_order_and_nobody_stays():
    async def scenario() -> list[int]:
        turns, gone_on = Turns(), []

        async def refused(number: int) -> None:
            await turns.wait()
            gone_on.append(number)

        await asyncio.wait_for(asyncio.gather(*(refused(number) for number in range(50))), 10)
        await asyncio.wait_for(refused(50), 10)
        return gone_on

    assert asyncio.run(scenario()) == list(range(51))


def test_what_takes_many_turns_is_done_before_a_crowd_that_waits():
    async def scenario() -> int:
        turns, gone_on = Turns(), 0

        async def refused() -> None:
            nonlocal gone_on
            await turns.wait()
            gone_on += 1

        crowd = [asyncio.create_task(refused()) for _ in range(100)]
        await asyncio.sleep(0)
        for _ in range(40):
            await asyncio.sleep(0)
        before = gone_on
        await asyncio.wait_for(asyncio.gather(*crowd), 10)
        return before

    assert 5 <= asyncio.run(scenario()) <= 11


def test_one_who_gives_up_holds_up_nobody():
    async def scenario() -> None:
        turns = Turns()
        waiting = [asyncio.create_task(turns.wait()) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[3].cancel()
        await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        assert [task.cancelled() for task in waiting] == [True, False, False, True, False]

    asyncio.run(scenario())
