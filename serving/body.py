"""Reads a request's body whole, bounded in size and time."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from serving.buffered_bytes import BufferedBytes
from serving.errors import RequestTooLargeError, SlowClientError
from serving.settings import LimitSettings

__all__ = ["BodyReader", "announced_bytes"]

_DISCARDED_TIMES_LIMIT = 16
"""A body beyond the limit is read and thrown away up to this multiple of it: most clients look for
an answer only after they have sent everything."""
_DIGITS_LIMIT = 18


def announced_bytes(headers: Headers) -> int | None:
    """Return how many bytes a body is said to have, 10^18 at the most; None where nothing says it.

    A number may have as many digits as a header; `int` takes 4,300.
    """
    announced = headers.get("content-length", "")
    if not announced.isdecimal():
        return None
    digits = announced.lstrip("0") or "0"
    return int(digits) if len(digits) <= _DIGITS_LIMIT else 10**_DIGITS_LIMIT


class BodyReader:
    """One request's body; bytes beyond the limit are counted, not kept.

    Args:
        limits: Bytes and seconds.
        buffered: Shared by all requests; `close` gives this one's bytes back.

    Attributes:
        is_whole: Whether its end has arrived.
    """

    def __init__(self, limits: LimitSettings, buffered: BufferedBytes) -> None:
        self._timeout_s = limits.body_timeout_s
        self._buffered = buffered
        self._held = 0
        self.limit = limits.max_body_bytes
        self.discarded_up_to = _DISCARDED_TIMES_LIMIT * self.limit
        self.size = 0
        self.is_whole = False
        self.chunks: list[bytes] = []

    def close(self) -> None:
        """Drop the body and give its bytes back, once it is answered or refused."""
        self.chunks.clear()
        self._buffered.give_back(self._held)
        self._held = 0

    async def read(self, receive: Receive, headers: Headers) -> None:
        """Read the whole body; `content` is what it says.

        Raises:
            RequestTooLargeError: It has more bytes than are allowed.
            SlowClientError: It did not arrive in time.
            OverloadedError: Too many bytes of others are held.
            ClientDisconnect: The client went away before its end.
        """
        announced = announced_bytes(headers)
        if announced is not None and announced > self.discarded_up_to:
            raise self._too_large(announced)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._read(receive)
        except TimeoutError as error:
            raise SlowClientError(
                f"expected the whole body within {self._timeout_s:g} s, found {self.size} bytes "
                "by then; send it faster, or in several requests"
            ) from error
        if self.size > self.limit:
            raise self._too_large(self.size)

    def content(self) -> bytes:
        """Return what was read; empty once it is closed."""
        return b"".join(self.chunks)

    async def _read(self, receive: Receive) -> None:
        while not self.is_whole and self.size <= self.discarded_up_to:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self.is_whole = not message.get("more_body", False)
            chunk = message.get("body", b"")
            self.size += len(chunk)
            if self.size <= self.limit:
                self._buffered.take(len(chunk))
                self._held += len(chunk)
                self.chunks.append(chunk)

    def _too_large(self, size: int) -> RequestTooLargeError:
        return RequestTooLargeError(
            f"expected a body of at most {self.limit} bytes, found {size}; send the inputs in "
            "several requests"
        )
