"""The way past the web framework: what it takes, and that it answers as the framework does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, Request, Response
from pydantic import StrictStr

from encoder.errors import InvalidInputError
from serving.dialects.wire import Body
from serving.shortcut import Shortcut, answers_of
from support.replica_app import DIALECTS, App


class Words(Body):
    text: StrictStr


def routes() -> APIRouter:
    router = APIRouter()

    @router.post("/shout")
    async def shout(body: Words, request: Request) -> Response:
        return Response(body.text.upper())

    @router.get("/quiet")
    async def quiet() -> Response:
        return Response("...")

    return router


def ask(method: str, path: str, body: bytes = b"", root_path: str = "") -> list[Any]:
    """Return what is sent; the framework behind the short way says "framework"."""
    sent: list[Any] = []

    async def framework(scope: Any, receive: Any, send: Any) -> None:
        await send("framework")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": root_path,
        "headers": [],
        "query_string": b"",
    }
    shortcut = Shortcut(framework, answers_of(routes().routes, lambda _: None))
    asyncio.run(shortcut(scope, receive, send))
    return sent


def test_what_is_posted_to_a_route_is_answered_without_the_framework():
    start, content = ask("POST", "/shout", b'{"text": "hello"}')
    assert start["status"] == 200
    assert content["body"] == b"HELLO"


def test_a_prefix_in_front_of_the_route_is_passed_over():
    assert ask("POST", "/v/shout", b'{"text": "a"}', root_path="/v")[1]["body"] == b"A"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/shout"), ("POST", "/quiet"), ("POST", "/shout/"), ("GET", "/")]
)
def test_everything_else_goes_the_frameworks_way(method: str, path: str):
    assert ask(method, path) == ["framework"]


def test_a_body_that_does_not_fit_is_an_error_in_our_words():
    with pytest.raises(InvalidInputError, match="text"):
        ask("POST", "/shout", b'{"text": 5}')


@pytest.mark.parametrize(("path", "field"), DIALECTS)
def test_every_dialect_embeds_on_the_short_way(
    path: str, field: str, monkeypatch: pytest.MonkeyPatch
):
    app = App()

    def framework(*_: object) -> None:
        pytest.fail("the framework was asked")

    monkeypatch.setattr("fastapi.routing.APIRoute.handle", framework)
    more = {"model": "org/fake", "input_type": "search_query"} if path == "/v2/embed" else {}
    if path == "/v1/embeddings":
        more = {"model": "org/fake"}
    content = ["a"] if field == "texts" else "a"
    assert app.post(path, **{field: content}, **more).status_code == 200
