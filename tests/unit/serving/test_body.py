"""A request's body is bounded: in bytes, in seconds, and together with the others'."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from starlette.datastructures import Headers

from serving.body import announced_bytes
from serving.dialects.health import HEALTH_PATHS
from support.replica_app import V1, App, refusal


async def in_chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def test_a_body_of_more_bytes_than_allowed_is_413_however_it_comes():
    app = App(max_body_bytes=100, max_buffered_bytes=100)  # what is too much is not kept

    def body(size: int) -> bytes:
        return json.dumps({"input": ""}).replace('""', f'"{"x" * (size - 13)}"').encode()

    assert len(body(100)) == 100
    assert app.post_text(V1, body(100)).status_code == 200
    for size in (101, 1_600, 1_601, 1_000_000):
        assert "at most 100 bytes" in refusal(app.post_text(V1, body(size)), 413)
        chunks = in_chunks(body(size), 64)
        json_type = {"content-type": "application/json"}
        refusal(app.request("POST", V1, content=chunks, headers=json_type), 413)
    assert app.metrics.rejections == [("-", "too_large")] * 8
    whole = in_chunks(body(100), 7)
    assert app.request("POST", V1, content=whole, headers=json_type).status_code == 200


def test_a_body_that_comes_too_slowly_is_408():
    async def slow() -> AsyncIterator[bytes]:
        yield b'{"input": '
        await asyncio.sleep(10)
        yield b'"a"}'

    app = App(body_timeout_s=0.05)

    message = refusal(app.request("POST", V1, content=slow()), 408, "timeout_error")

    assert "within 0.05 s, found 10 bytes" in message
    assert app.metrics.rejections == [("-", "slow_client")]


def test_bodies_beyond_what_may_be_held_at_once_are_429():
    app = App(max_buffered_bytes=100)
    assert app.post(V1, input="a").status_code == 200
    answer = app.post(V1, input="a" * 200)
    refusal(answer, 429, "rate_limit_error")
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers, "it may be sent again"
    assert app.metrics.rejections == [("-", "overloaded")]
    assert app.post(V1, input="a").status_code == 200, "its bytes were not given back"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("path", sorted(HEALTH_PATHS))
def test_without_a_key_no_body_is_held_where_none_is_asked_for(method: str, path: str):
    app = App(api_keys=("right",))
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            assert app.asgi.state.gate.buffered.held == 0
            sent += 1
            yield b"x" * 100

    answer = app.request(method, path, content=endless())

    refusal(answer, 405)
    assert answer.headers["connection"] == "close"
    assert sent <= 1, "the body was read"


@pytest.mark.parametrize(
    ("announced", "expected"),
    [
        (None, None),
        ("", None),
        ("+1", None),
        ("0", 0),
        ("0" * 5000 + "14", 14),
        ("9" * 18, 10**18 - 1),
        ("9" * 5000, 10**18),
    ],
)
def test_a_length_is_announced_in_any_number_of_digits(announced: str | None, expected: int | None):
    headers = {} if announced is None else {"content-length": announced}

    assert announced_bytes(Headers(headers)) == expected


def test_a_body_whose_length_has_thousands_of_digits_is_answered(app: App):
    body = b'{"input": "a"}'
    padded = str(len(body)).zfill(5000)

    assert app.post_text(V1, body, content_length=padded).status_code == 200
    refusal(app.post_text(V1, body, content_length="9" * 5000), 413)
