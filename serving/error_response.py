"""Errors in OpenAI's shape, which every client of every dialect can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from encoder.errors import TwofoldError
from serving.errors import (
    OverloadedError,
    TextFailedError,
    error_code,
    error_type,
    http_status,
)
from serving.request_record import record_of

__all__ = ["ErrorBody", "describe_problems", "error_response", "shape_errors", "shortened"]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Body of every answer that is no success, as OpenAI shapes it."""

    error: ErrorDetail


_UNKNOWN_URL = "unknown_url"
"""As OpenAI calls a path that is none."""
_MESSAGE_CHARACTERS = 2000
_SHOWN_PROBLEMS = 5
_SHOWN_CHARACTERS = 200


def error_response(error: TwofoldError) -> JSONResponse:
    """Return an error of ours as a response."""
    headers = {}
    if isinstance(error, OverloadedError):
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, TextFailedError):
        headers["x-should-retry"] = "false"  # openai's client sends a 500 twice more
    if http_status(error) == 401:
        headers["www-authenticate"] = "Bearer"
    detail = _detail(str(error), error_type(error), error_code(error))
    return _shaped(http_status(error), detail, headers)


def shape_errors(app: FastAPI) -> None:
    """Give the errors of the web framework the same shape: unknown paths, wrong methods."""

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is"
        record_of(request.scope).error = message
        code = _UNKNOWN_URL if error.status_code == 404 else None
        detail = _detail(message, "invalid_request_error", code)
        return _shaped(error.status_code, detail, dict(error.headers or {}))


def shortened(message: str) -> str:
    """Return a message without the rest of what a client sent, of which it may quote megabytes."""
    if len(message) <= _MESSAGE_CHARACTERS:
        return message
    return f"{message[:_MESSAGE_CHARACTERS]} [...]"


def _detail(message: str, kind: str, code: str | None) -> ErrorDetail:
    # A lone surrogate of the client's own text must not break the answer that complains of it.
    readable = shortened(message).encode("utf-8", "backslashreplace").decode("utf-8")
    return ErrorDetail(message=readable, type=kind, param=None, code=code)


def _shaped(status: int, detail: ErrorDetail, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse(ErrorBody(error=detail).model_dump(), status, headers)


def describe_problems(problems: Sequence[Any]) -> str:
    """Return one line of what is wrong with a body; of a union's branches each field is told once.

    Args:
        problems: As pydantic lists them.
    """
    told: dict[str, list[Any]] = {}
    for problem in problems:
        place = problem["loc"]
        told.setdefault(str(place[0]) if place else "body", []).append(problem)
    shown = [_told(*field) for field in list(told.items())[:_SHOWN_PROBLEMS]]
    more = len(told) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _told(field: str, problems: list[Any]) -> str:
    """Return what is wrong with a field: of a union's branches, what each would take."""
    kind = str(problems[0]["type"])
    if kind == "missing":
        return f"{field}: expected a value, found none"
    if kind == "string_unicode":
        return f"{field}: expected text that can be written as UTF-8, found a lone surrogate"
    found = _found(problems[0])
    if field in _INPUT_FIELDS:
        return f"{field}: expected {_INPUT_FIELDS[field]}, found {found}"
    if kind == "value_error":
        return str(problems[0]["msg"]).removeprefix("Value error, ")
    expected = (str(problem["msg"]).removeprefix("Input should be ") for problem in problems)
    return f"{field}: expected {' or '.join(dict.fromkeys(expected))}, found {found}"


_INPUT_FIELDS = {
    "input": "a text, a list of texts, or (lists of) token ids",
    "inputs": "a text or a list of texts",
    "texts": "a list of texts",
}


def _found(problem: dict[str, Any]) -> str:
    found = problem.get("input")
    try:
        return f"{type(found).__name__} {found!r:.{_SHOWN_CHARACTERS}}"
    except RecursionError:  # the parser of JSON goes deeper than Python
        return type(found).__name__
