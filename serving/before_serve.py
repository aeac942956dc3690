"""What a replica does with a request before Serve sees it.

Serve spends 0.3 ms of the event loop on a request before the application has it, obeys some of its
headers, and fails where one that it reads is not UTF-8. Ray takes this in by the variable
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, in every process that serves HTTP, for requests to any
application; without it the endpoint works, and the gate refuses the same requests later and dearer.
A session's header under another name (`RAY_SERVE_SESSION_ID_HEADER_KEY`) is left as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import OverloadedError
from serving.one_write import in_one_write, keep_connection

if TYPE_CHECKING:
    from serving.gate import Gate

__all__ = ["BeforeServe", "guarded_by", "middlewares"]

_READ_BY_SERVE = {b"x-request-id", b"traceparent", b"tracestate"}
"""As UTF-8: it answers 500 where they are something else."""
_OBEYED_BY_SERVE = {
    b"x_request_timeout_seconds",
    b"x_request_disconnect_disabled",
    b"x_session_id",
    b"serve_multiplexed_model_id",
}
"""Here a setting limits the time of a request, who goes away is noticed, and replicas know neither
sessions nor other models."""
_gates: dict[asyncio.AbstractEventLoop, Gate] = {}
"""The replica's, by the event loop that it is for; a proxy's process has none."""


@contextmanager
def guarded_by(gate: Gate) -> Iterator[None]:
    """Ask a gate about every request that the running event loop takes meanwhile.

    Where Ray runs the application on another event loop than its server
    (`RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD`, the default outside of the throughput-optimised
    mode), that is none: a gate is for one event loop.
    """
    loop = asyncio.get_running_loop()
    _gates[loop] = gate
    try:
        yield
    finally:
        del _gates[loop]


def middlewares() -> list[Middleware]:
    """Return what Ray puts around Serve's application; Ray calls it."""
    return [Middleware(BeforeServe)]


class BeforeServe:
    """ASGI middleware around Serve.

    Args:
        app: Serve's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that has to be refused for load; pass every other on to Serve.

        A replica's responses leave in one write.
        """
        if scope["type"] == "http":
            scope["headers"] = [header for header in scope["headers"] if _is_for_serve(*header)]
            gate = _gates.get(asyncio.get_running_loop())
            if gate is not None:
                keep_connection(scope, send)
                send = in_one_write(send)
                try:
                    gate.check_early(scope)
                except OverloadedError as refusal:
                    await gate.refuse(refusal, scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _is_for_serve(name: bytes, value: bytes) -> bool:
    if name in _READ_BY_SERVE:
        try:
            value.decode()
        except UnicodeDecodeError:
            return False
    return name.replace(b"-", b"_") not in _OBEYED_BY_SERVE
