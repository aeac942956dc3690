"""How many bytes of requests, or of answers, a replica holds for its clients: a bound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import OverloadedError, RequestTooLargeError

__all__ = ["BufferedBytes"]


class BufferedBytes:
    """Bytes of all request bodies, or of all large answers, that are held at once.

    Args:
        limit: Bytes beyond which no more are taken.

    Attributes:
        held: Bytes that are held now.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Count bytes that are held from now on.

        Raises:
            OverloadedError: There would be too many.
        """
        if self.held + size > self._limit:
            raise OverloadedError(
                f"{self.held} bytes of others are held, {self._limit} may; send this "
                "request again after the time in Retry-After",
                retry_after_s=1,
            )
        self.held += size

    def give_back(self, size: int) -> None:
        """Count bytes that are held no more."""
        self.held -= size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count the bytes of an answer while it is being sent.

        Raises:
            RequestTooLargeError: It alone has more bytes than may be held.
            OverloadedError: There would be too many.
        """
        if size > self._limit:
            raise RequestTooLargeError(
                f"expected an answer of at most {self._limit} bytes, which may be held, found "
                f"{size}; send the inputs in several requests"
            )
        self.take(size)
        try:
            yield
        finally:
            self.give_back(size)
