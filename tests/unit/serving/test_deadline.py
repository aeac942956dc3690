from __future__ import annotations

import asyncio

import pytest

from serving.deadline import within


def test_what_is_done_in_time_is_returned_and_what_it_raises_is_raised():
    async def fail() -> None:
        raise KeyError("theirs")

    assert asyncio.run(within(5, asyncio.sleep(0, "done"))) == "done"
    with pytest.raises(KeyError, match="theirs"):
        asyncio.run(within(5, fail()))


def test_what_takes_longer_is_cancelled():
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(within(0.01, slow()))
    assert ended == ["cancelled"]


def test_a_caller_that_goes_away_is_not_taken_for_a_deadline():
    async def scenario() -> None:
        waiting = asyncio.create_task(within(60, asyncio.sleep(60)))
        await asyncio.sleep(0)
        waiting.cancel()
        await waiting

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())
