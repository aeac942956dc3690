"""One keep-alive HTTP/1.1 connection that costs the client next to nothing.

Client and server share the machine: what a client library spends on a request, the server does not
have. Requests are bytes that were made before; of a reply only status, length and end are read.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from benchmarks.endpoint.samples import NO_REPLY

__all__ = ["Connection", "LoadLoop"]

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_CLOSE = b"\r\nconnection: close"
_STATUS = slice(9, 12)
"""Of `HTTP/1.1 200 OK`."""


class LoadLoop(Protocol):
    """Who sends requests over connections."""

    def idle(self, connection: Connection) -> None:
        """Take a connection that has nothing under way; called from its callbacks."""

    def ended(self, arrived: float, status: int) -> None:
        """Count a request."""

    def lost(self, connection: Connection) -> None:
        """Forget a connection that was closed."""


class Connection(asyncio.Protocol):
    """A connection with at most one request under way.

    Args:
        loop: Is told of everything.
    """

    def __init__(self, loop: LoadLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._arrived: float | None = None
        self._reply = bytearray()
        self._end: int | None = None
        self._is_last = False

    @property
    def arrived(self) -> float | None:
        """When the request under way arrived; None without one."""
        return self._arrived

    def request(self, content: bytes, arrived: float) -> None:
        """Send a request; its time counts from `arrived`."""
        assert self._transport is not None
        self._arrived = arrived
        self._transport.write(content)

    def close(self) -> None:
        """Close at once, without waiting for a reply."""
        self._arrived = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._loop.idle(self)

    def data_received(self, data: bytes) -> None:
        """Take a part of a reply; called by asyncio."""
        self._reply += data
        if self._end is None:
            self._read_head()
        if self._end is None or len(self._reply) < self._end or self._arrived is None:
            return
        status = int(self._reply[_STATUS])
        arrived, self._arrived = self._arrived, None
        self._reply, self._end = bytearray(), None
        self._loop.ended(arrived, status)
        if self._is_last and self._transport is not None:
            self._transport.close()
        else:
            self._loop.idle(self)

    def connection_lost(self, error: Exception | None) -> None:
        """End; called by asyncio."""
        if self._arrived is not None:
            arrived, self._arrived = self._arrived, None
            self._loop.ended(arrived, NO_REPLY)
        self._loop.lost(self)

    def _read_head(self) -> None:
        head_end = self._reply.find(_HEAD_END)
        if head_end < 0:
            return
        head = bytes(self._reply[:head_end]).lower()
        _, found, rest = head.partition(_LENGTH)
        if not found:
            # Chunked: no system here sends it. The request counts as one without a reply.
            self._is_last = True
            if self._transport is not None:
                self._transport.abort()
            return
        self._end = head_end + len(_HEAD_END) + int(rest.partition(b"\r\n")[0])
        self._is_last = _CLOSE in head
