"""A response's head and body in one write.

uvicorn writes them one after the other, and has no setting for it: two system calls here, and each
wakes HAProxy and then the client. On two cores one write takes a sixth off a lone query's time.
"""

from __future__ import annotations

from typing import Any

from starlette.types import Message, Scope, Send

__all__ = ["ABORT", "PEER", "in_one_write", "keep_connection"]

ABORT = "twofold.abort"
"""Where a request's scope has what drops its connection."""
PEER = "twofold.peer"
"""And the address at its other end: in `client` uvicorn puts what X-Forwarded-For says."""


def keep_connection(scope: Scope, send: Send) -> None:
    """Put into a scope who is connected, and what drops the connection with all that waits in it.

    ASGI has no word for it. To close a connection only stops what is written after that.

    Args:
        scope: Of a request.
        send: uvicorn's, of that request. Of any other nothing is kept.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None:
        scope[ABORT] = transport.abort
        if peer := transport.get_extra_info("peername"):
            scope[PEER] = peer[0]


def in_one_write(send: Send) -> Send:
    """Return what sends the same, but the head together with the first part of the body.

    Args:
        send: uvicorn's, of one request. Any other is returned as it is.
    """
    cycle: Any = getattr(send, "__self__", None)
    if not hasattr(cycle, "transport"):
        return send
    held = cycle.transport = _HeldTransport(cycle.transport)

    async def send_together(message: Message) -> None:
        if message["type"] == "http.response.start":
            held.next_is_head = True
            await send(message)
        else:
            await send(message)
            held.flush()  # there may be no body: HEAD

    return send_together


class _HeldTransport:
    """What one request's response is written to; the rest of a transport is the connection's.

    Args:
        transport: The connection's.

    Attributes:
        next_is_head: Whether the next bytes are a head, which waits for those after it.
    """

    def __init__(self, transport: Any) -> None:  # noqa: ANN401 - uvloop's and asyncio's have no common type
        self._transport = transport
        self._head = b""
        self.next_is_head = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a transport's
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write bytes behind the head that waits, or keep them if they are it."""
        if self.next_is_head:
            self.next_is_head, self._head = False, data
        elif self._head:
            head, self._head = self._head, b""
            # An empty part in the list asyncio of Python 3.12 and 3.13 would send for ever.
            self._transport.writelines([head, data] if data else [head])
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Write a head that waits."""
        head, self._head = self._head, b""
        # A client that went away meanwhile: uvicorn wrote no body, and uvloop would raise.
        if head and not self._transport.is_closing():
            self._transport.write(head)

    def close(self) -> None:
        """Close the connection, behind what waits."""
        self.flush()
        self._transport.close()
