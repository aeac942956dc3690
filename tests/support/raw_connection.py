"""HTTP/1.1 over a bare connection, for clients that pipeline, dawdle or go away."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

__all__ = ["RawAnswer", "RawConnection"]


@dataclass(frozen=True)
class RawAnswer:
    """What came back; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection behind it."""
        return self.headers.get("connection") == "close"


class RawConnection:
    """One connection; nothing is sent or read unless it is asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[Self]:
        """Connect, and close in the end."""
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def send(self, data: bytes, *, parts: int = 1, pause_s: float = 0.0) -> None:
        """Send bytes, with a pause behind each of the parts but the last."""
        size = -(-len(data) // parts)
        for start in range(0, len(data), size):
            if start:
                await asyncio.sleep(pause_s)
            self._writer.write(data[start : start + size])
            await self._writer.drain()

    async def answer(self, *, has_body: bool = True, pause_s: float = 0.0) -> RawAnswer:
        """Read an answer.

        Args:
            has_body: Not so behind a HEAD.
            pause_s: Between two reads of the body.

        Raises:
            ConnectionError: The connection was closed before its end.
        """
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip().split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = bytearray()
            left = int(headers.get("content-length", "0")) if has_body else 0
            while left:
                await asyncio.sleep(pause_s)
                body += await self._reader.readexactly(min(left, 2**16))
                left = int(headers["content-length"]) - len(body)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError(f"closed behind {error.partial[:100]!r}") from error
        return RawAnswer(int(first.split()[1]), headers, bytes(body))

    async def some(self) -> bytes:
        """Read what has come of an answer."""
        return await self._reader.read(2**12)

    def abort(self) -> None:
        """Drop the connection, as a client that dies does: RST instead of FIN."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._writer.transport.abort()
