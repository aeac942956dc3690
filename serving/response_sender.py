"""Sends a response; a large one no faster than the client takes it, and counted until it has.

uvicorn keeps what a client does not read, without a bound: 10 kB of request can have 10 MB of
answer, and 60 clients that read nothing took a replica from 76 to 884 MB. But before it takes the
next message of a response it waits until nearly all of the last one is on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import chain

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import Message, Send

__all__ = [
    "CLIENT_GONE",
    "LEAST_BYTES_PER_S",
    "PART_BYTES",
    "REQUEST_ID",
    "SMALL_BYTES",
    "ResponseSender",
]

CLIENT_GONE = 499
REQUEST_ID = "x-request-id"
SMALL_BYTES = 2**16
"""A body of no more is sent as it is: uvicorn takes so much before it waits for the client."""
PART_BYTES = 2**18
"""What a client has to take in the time it is given. The kernel, too, keeps some of an answer, and
tells of what was read in steps of about 1 MB (both ends on one machine)."""

LEAST_BYTES_PER_S = 40_000
"""What a client has to take of a whole answer, beside the time for a part of it."""


class ResponseSender:
    """Sends one response and remembers its status.

    Args:
        send: ASGI's.
        request_id: Put into the headers; None where somebody else does that.
        holding: Counts the bytes of a large body while it is being sent; raises where they are too
            many.
        timeout_s: In which a client has to take each part of it.
        abort: Drops the connection with all that waits to be written; None where nothing can.

    Attributes:
        status: Of the response; 499 where the client is gone.
        has_started: Whether its head was sent, and no other can be.
        closes: Whether the connection is closed after it.
    """

    def __init__(
        self,
        send: Send,
        request_id: str | None,
        holding: Callable[[int], AbstractContextManager[None]],
        timeout_s: float,
        abort: Callable[[], None] | None,
    ) -> None:
        self._send = send
        self._request_id = request_id
        self._holding = holding
        self._timeout_s = timeout_s
        self._abort = abort
        self._head: Message | None = None
        self.status = CLIENT_GONE
        self.has_started = False
        self.closes = False

    async def __call__(self, message: Message) -> None:
        """Send a message of ASGI; a head waits for the first of its body.

        Raises:
            OverloadedError: Too many bytes of others are held; nothing was sent.
            RequestTooLargeError: The body is larger than all that may be held; nothing was sent.
            ClientDisconnect: The client did not take the body in time.
        """
        if message["type"] == "http.response.start":
            self._head = message
            self.status = message["status"]
            return
        head, self._head = self._head, None
        if head is not None and len(message.get("body", b"")) > SMALL_BYTES:
            with self._holding(len(message["body"])):
                await self._start(head)
                await self._send_in_parts(message)
            return
        if head is not None:
            await self._start(head)
        await self._send(message)

    async def _start(self, head: Message) -> None:
        self.has_started = True
        if self._request_id is not None:
            MutableHeaders(scope=head)[REQUEST_ID] = self._request_id
        if self.closes:
            MutableHeaders(scope=head)["connection"] = "close"
        await self._send(head)

    async def _send_in_parts(self, message: Message) -> None:
        body: bytes = message["body"]
        # The last message is empty: that it is taken says that the part before it is on its way.
        last = {**message, "body": b""}
        starts = range(0, len(body), PART_BYTES)
        parts = ({**last, "body": body[at : at + PART_BYTES], "more_body": True} for at in starts)
        try:
            async with asyncio.timeout(self._timeout_s + len(body) / LEAST_BYTES_PER_S):
                for part in chain(parts, [last]):
                    async with asyncio.timeout(self._timeout_s):
                        await self._send(part)
        except asyncio.CancelledError:
            self.status = CLIENT_GONE  # Serve cancels what nobody waits for
            raise
        except TimeoutError as error:
            self.status = CLIENT_GONE
            if self._abort is not None:
                self._abort()
                await self._send(last)  # returns once the server knows that the client is gone
            raise ClientDisconnect(
                f"the client took its answer of {len(body)} bytes too slowly: slower than "
                f"{LEAST_BYTES_PER_S} bytes/s, or less than {PART_BYTES} bytes in "
                f"{self._timeout_s:g} s"
            ) from error
