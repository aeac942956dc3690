"""One at a time: what is refused lets what was accepted go first.

Answering a request takes several turns of the event loop, and opening a connection takes one of its
own. Where hundreds of refusals are answered in each turn, a turn takes half a second, and everybody
else waits for that.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Turns"]


class Turns:
    """Lets those who wait go on, in order, one in each turn of the event loop.

    Nobody waits for a clock: as long as somebody waits, every turn lets one go on.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return in a later turn of the event loop."""
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        if len(self._waiting) == 1:
            loop.call_soon(self._let_one_go_on, loop)
        await mine

    def _let_one_go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        first = self._waiting.popleft()
        if not first.done():  # its request may have been cancelled meanwhile
            first.set_result(None)
        if self._waiting:
            loop.call_soon(self._let_one_go_on, loop)
