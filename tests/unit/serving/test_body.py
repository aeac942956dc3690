"""A request's body is bounded: in bytes, in seconds, and together with the others'."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from support.replica_app import V1, App, refusal


async def in_chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def test_a_body_of_more_bytes_than_allowed_is_413_however_it_comes():
    app = App(max_body_bytes=100)

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
    assert app.metrics.rejections == [("-", "overloaded")]
    assert app.post(V1, input="a").status_code == 200, "its bytes were not given back"
