"""Few at a time: what is refused lets what was accepted go first.

Answering a request takes several turns of the event loop. Where hundreds of refusals are answered in
each turn, a turn takes half a second and an accepted request waits for every one of them.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Turns"]


class Turns:
    """Lets those who wait go on, in order, only a few in one turn of the event loop.

    Nobody waits for a clock: as long as somebody waits, every turn lets some go on.

    Args:
        per_turn: How many go on in one turn.
    """

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return in a later turn of the event loop."""
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._let_go_on, loop)
        self._waiting.append(mine)
        await mine

    def _let_go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(self._per_turn, len(self._waiting))):
            waiting = self._waiting.popleft()
            if not waiting.done():  # its request may have been cancelled meanwhile
                waiting.set_result(None)
        if self._waiting:
            loop.call_soon(self._let_go_on, loop)
