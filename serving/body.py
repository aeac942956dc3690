"""Reads a request's body whole, bounded in size and time."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from serving.errors import RequestTooLargeError, SlowClientError
from serving.settings import LimitSettings

__all__ = ["read_body"]

_DISCARDED_TIMES_LIMIT = 16
"""A body beyond the limit is read and thrown away up to this multiple of it: most clients look for
an answer only after they have sent everything."""


class _Body:
    """The part of a body that was read; bytes beyond `limit` are counted, not kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.discarded_up_to = _DISCARDED_TIMES_LIMIT * limit
        self.size = 0
        self.chunks: list[bytes] = []

    async def read(self, receive: Receive) -> None:
        has_more = True
        while has_more and self.size <= self.discarded_up_to:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            self.size += len(chunk)
            if self.size <= self.limit:
                self.chunks.append(chunk)
            has_more = message.get("more_body", False)

    def too_large(self, size: int) -> RequestTooLargeError:
        return RequestTooLargeError(
            f"expected a body of at most {self.limit} bytes, found {size}; send the inputs in "
            "several requests"
        )


async def read_body(receive: Receive, headers: Headers, limits: LimitSettings) -> bytes:
    """Return a request's body.

    Raises:
        RequestTooLargeError: It has more bytes than are allowed.
        SlowClientError: It did not arrive in time.
        ClientDisconnect: The client went away before its end.
    """
    body = _Body(limits.max_body_bytes)
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > body.discarded_up_to:
        raise body.too_large(int(announced))
    try:
        await asyncio.wait_for(body.read(receive), limits.body_timeout_s)
    except asyncio.TimeoutError as error:
        raise SlowClientError(
            f"expected the whole body within {limits.body_timeout_s:g} s, found {body.size} bytes "
            "by then; send it faster, or in several requests"
        ) from error
    if body.size > body.limit:
        raise body.too_large(body.size)
    return b"".join(body.chunks)
