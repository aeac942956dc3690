"""What a replica does with a request before Serve sees it.

Serve spends 0.3 ms of the event loop on a request before the application has it, reads headers that
are not ours to obey, and fails over those that are not UTF-8. Ray takes this in by the variable
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, in every process that serves HTTP; without it the
endpoint works, and the gate refuses the same requests later and dearer.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import OverloadedError
from serving.gate import Gate

__all__ = ["BeforeServe", "guard", "middlewares"]

_REQUEST_ID = b"x-request-id"
_OBEYED_BY_SERVE = {b"x_request_timeout_seconds", b"serve_multiplexed_model_id"}
"""Here a setting limits the time of a request, and a replica has one model."""
_gates: list[Gate] = []
"""The replica's, once it is there; a process has one replica, and a proxy's has none."""


def guard(gate: Gate) -> None:
    """Ask a gate, from now on, about every request of this process."""
    _gates[:] = [gate]


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
        """Answer a request that has to be refused for load; pass every other on to Serve."""
        if scope["type"] == "http":
            scope["headers"] = [header for header in scope["headers"] if _is_for_serve(*header)]
            for gate in _gates:
                try:
                    gate.check_early(scope)
                except OverloadedError as refusal:
                    await gate.refuse(refusal, scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _is_for_serve(name: bytes, value: bytes) -> bool:
    if name == _REQUEST_ID:
        try:
            value.decode()
        except UnicodeDecodeError:
            return False
    return name.replace(b"-", b"_") not in _OBEYED_BY_SERVE
