"""A few at a time: what is refused lets what was accepted go first.

Answering a request takes several turns of the event loop, and opening a connection takes one of its
own. Where hundreds of refusals are answered in each turn, a turn takes half a second, and everybody
else waits for that.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Turns"]

_TURNS_EACH = 4
_SHARE = 32
"""Of those who wait, one in so many goes on each time: 5,000 are through after 820 turns (one each
time would take 20,000, and where more come than go on, no end)."""


class Turns:
    """Lets those who wait go on, in order, in every fourth turn of the event loop: one, or a 32nd.

    Nobody waits for a clock: an event loop that has nothing else to do turns at once.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return in a later turn of the event loop."""
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        if len(self._waiting) == 1:
            self._turn(loop, _TURNS_EACH)
        await mine

    def _turn(self, loop: asyncio.AbstractEventLoop, left: int) -> None:
        if left:
            loop.call_soon(self._turn, loop, left - 1)
            return
        due = max(1, len(self._waiting) // _SHARE)
        while due and self._waiting:
            first = self._waiting.popleft()
            if not first.done():  # a request that was cancelled meanwhile takes nobody's turn
                first.set_result(None)
                due -= 1
        if self._waiting:
            loop.call_soon(self._turn, loop, _TURNS_EACH - 1)
