"""The short way to what embeds: past the web framework's layers, routes and reading of bodies.

Its layers and its search for a route cost a request 80 us of the event loop; its way through a body
200 us more: it parses the content type as an e-mail's, and looks for dependencies, query, headers
and cookies that no such route here has. Everything else goes its way, and so do the docs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, cast

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.dialects.wire import read_body

__all__ = ["Answer", "Shortcut", "answers_of"]

Answer = Callable[[Request], Coroutine[Any, Any, Response]]


def answers_of(routes: Iterable[object], check_count: Callable[[int], None]) -> dict[str, Answer]:
    """Return what answers a POST, by its path.

    Args:
        routes: Those that take `body` and `request` answer one.
        check_count: Raises where a request may not have so many inputs.
    """
    answers = {}
    for route in routes:
        if isinstance(route, APIRoute) and route.body_field is not None:
            model = cast("type[BaseModel]", route.body_field.field_info.annotation)
            answers[route.path] = _answer_of(route.endpoint, model, check_count)
    return answers


def _answer_of(
    endpoint: Callable[..., Coroutine[Any, Any, Response]],
    model: type[BaseModel],
    check_count: Callable[[int], None],
) -> Answer:
    async def answer(request: Request) -> Response:
        body = read_body(await request.body(), model, check_count)
        return await endpoint(body=body, request=request)

    return answer


class Shortcut:
    """ASGI middleware between the gate and the framework.

    Args:
        app: Takes everything else.
        answers: What answers a POST, by its path.
    """

    def __init__(self, app: ASGIApp, answers: Mapping[str, Answer]) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            InvalidInputError: Its body is not what it must be.
        """
        answer = None
        if scope["type"] == "http" and scope["method"] == "POST":
            answer = self._answers.get(scope["path"].removeprefix(scope.get("root_path", "")))
        if answer is None:
            await self._app(scope, receive, send)
            return
        response = await answer(Request(scope, receive))
        await response(scope, receive, send)
