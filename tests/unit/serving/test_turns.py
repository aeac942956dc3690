"""What is refused lets what was accepted go first, and everybody goes on."""

from __future__ import annotations

import asyncio
from typing import Any

from serving.turns import Turns


async def turned(count: int) -> None:
    """Return after so many turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


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

        crowd = [asyncio.create_task(refused()) for _ in range(60)]
        await asyncio.sleep(0)
        await turned(40)
        before = gone_on
        await asyncio.wait_for(asyncio.gather(*crowd), 10)
        return before

    assert 5 <= asyncio.run(scenario()) <= 11


def test_5000_are_through_within_1000_turns():
    """A 32nd of those who wait in every fourth turn: 820 turns, where one each took 20,000."""

    async def scenario() -> list[bool]:
        turns = Turns()
        crowd = [asyncio.create_task(turns.wait()) for _ in range(5_000)]
        await turned(100)
        soon = [task.done() for task in crowd]
        await turned(900)
        assert all(task.done() for task in crowd)
        return soon

    soon = asyncio.run(scenario())
    # After 25 of 32nds less than half of them, and those who came first.
    assert 2_000 < sum(soon) < 3_000
    assert soon == sorted(soon, reverse=True)


def test_those_who_gave_up_take_nobodys_turn():
    async def scenario() -> None:
        turns = Turns()
        crowd = [asyncio.create_task(turns.wait()) for _ in range(60)]
        await asyncio.sleep(0)
        for task in crowd[:59]:
            task.cancel()
        await turned(10)
        assert crowd[59].done()
        assert not crowd[59].cancelled()

    asyncio.run(scenario())


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


def test_once_all_have_gone_on_or_given_up_the_event_loop_has_nothing_to_do():
    async def scenario() -> None:
        turns, loop, errors, asked = Turns(), asyncio.get_running_loop(), [], []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        given_up = asyncio.create_task(turns.wait())
        await asyncio.sleep(0)
        given_up.cancel()
        await turned(10)
        await turns.wait()
        call_soon = loop.call_soon

        def spied(callback: Any, *args: Any, **options: Any) -> asyncio.Handle:
            asked.append(getattr(callback, "__self__", None))
            return call_soon(callback, *args, **options)

        loop.call_soon = spied
        await turned(10)
        assert turns not in asked
        assert errors == []

    asyncio.run(scenario())
