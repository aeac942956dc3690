"""Wait for something, but not longer than a number of seconds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["within"]

_Result = TypeVar("_Result")


async def within(seconds: float, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what a coroutine returns.

    Raises:
        asyncio.TimeoutError: It has not returned in time; it is cancelled.
    """
    if sys.version_info >= (3, 11):
        # No task of its own, which would wait two turns of the event loop more.
        async with asyncio.timeout(seconds):
            return await work
    else:
        return await asyncio.wait_for(work, seconds)
