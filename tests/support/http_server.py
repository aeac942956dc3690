"""A real uvicorn on a port of its own, in the test's event loop; and requests for it, as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from support.ports import free_port

__all__ = ["request", "serving"]


def request(*headers: str, method: str = "POST", path: str = "/", body: str = "{}") -> bytes:
    lines = "".join(headers)
    length = f"content-length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nhost: replica\r\n{length}{lines}\r\n{body}".encode()


@asynccontextmanager
async def serving(app: Any, protocol: type, written: list[bytes]) -> AsyncIterator[int]:
    """Yield the port of a server; what it writes is kept, each time for itself."""

    class Counted:
        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def __getattr__(self, name: str) -> Any:
            return getattr(self.transport, name)

        def write(self, data: bytes) -> None:
            if data:  # h11 ends a body with nothing
                written.append(data)
            self.transport.write(data)

        def writelines(self, parts: list[bytes]) -> None:
            written.append(b"".join(parts))
            self.transport.writelines(parts)

    class Protocol(protocol):  # type: ignore[misc]  # one that is given
        def connection_made(self, transport: Any) -> None:
            super().connection_made(Counted(transport))

    port = free_port()
    config = uvicorn.Config(
        app, "127.0.0.1", port, http=Protocol, lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        await running
