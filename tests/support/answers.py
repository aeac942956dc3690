"""What every answer of an endpoint must look like, whatever was sent to it.

HAProxy answers some requests itself (garbage, half of a request); its answers have no request id.
What has one was written by our process, and is JSON; what is not a success is OpenAI-shaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["CODES", "assert_error", "assert_ours_is_shaped", "error_of"]

CODES: dict[int, str | None] = {
    400: None,
    401: "invalid_api_key",
    405: None,
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    429: "rate_limit_exceeded",
    503: "not_ready",
    504: "vectors_timeout",
}
"""`error.code` by the status of the answer."""
_SEVERAL = {404: {"model_not_found", "unknown_url"}, 500: {None, "text_failed"}}


def error_of(body: bytes) -> dict[str, Any]:
    """Return the `error` of an OpenAI-shaped body; assert that it is one.

    A number as `code` breaks clients of typed languages, which read a string or null.
    """
    content = json.loads(body)
    assert list(content) == ["error"], content
    error = content["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert error["message"], error
    assert isinstance(error["type"], str), error
    assert isinstance(error["code"], str | None), error
    return error


def assert_error(body: bytes, status: int, *words: str) -> None:
    """Assert that a body is an error of that status, and that its message has these words."""
    error = error_of(body)
    assert error["code"] in _SEVERAL.get(status, {CODES.get(status)}), (status, error)
    missing = [word for word in words if word not in error["message"]]
    assert not missing, f"{missing} not in {error['message']!r}"


def assert_ours_is_shaped(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Assert that an answer which our process wrote is JSON, and OpenAI-shaped if it is no 200."""
    if "x-request-id" not in headers or not body:
        return
    assert headers["content-type"].startswith("application/json"), (status, dict(headers), body)
    if status != 200:
        assert_error(body, status)
