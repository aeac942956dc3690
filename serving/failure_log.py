"""Answers of 5xx in the replica's log, one a second: an outage has thousands, which say the same.

The access log has every one of them, where there is an access log.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

__all__ = ["FailureLog"]

_INTERVAL_S = 1.0


class FailureLog:
    """Writes at most one line a second. For one event loop.

    Args:
        logger: Gets the lines.
        clock: Seconds that only grow.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._last = -math.inf
        self._left_out = 0

    def add(self, status: int, request_id: str, message: str) -> None:
        """Write a failure, and how many were left out before it; leave it out soon after another.

        Args:
            status: Of the answer.
            request_id: By which the access log has it, too.
            message: What was answered.
        """
        now = self._clock()
        if now - self._last < _INTERVAL_S:
            self._left_out += 1
            return
        others = f" ({self._left_out} more since the last such line)" if self._left_out else ""
        self._logger.error("answered %d to request %s: %s%s", status, request_id, message, others)
        self._last, self._left_out = now, 0
