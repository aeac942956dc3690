"""One replica's web application in this process: a fake encoder behind it, no Ray, no socket.

Used by the tests of `serving`, which speak HTTP to it and read what it did.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np

from encoder.encoder import EncodedVectors
from encoder.space import Role
from encoder.tokenizer import Tokenized
from serving.access_log import AccessLog
from serving.embedding import EmbeddingService
from serving.http_app import build_http_app
from serving.load import LoadMeter
from serving.settings import ServingSettings
from support.answers import assert_error, error_of
from support.fake_encoder import SPACE, FakeEncoder

__all__ = [
    "DIALECTS",
    "DOCUMENT",
    "NAME",
    "NINE",
    "QUERY",
    "TEI",
    "V1",
    "V2",
    "WIDE",
    "App",
    "RecordedMetrics",
    "WideEncoder",
    "check_vectors",
    "embeddings",
    "refusal",
    "run_scenario",
    "vector",
]

NAME = "org/fake"
QUERY, DOCUMENT = Role.QUERY, Role.DOCUMENT
WIDE = replace(SPACE, dimension=16)
NINE = "one two three four five six seven eight nine"
"""A text of one token more than the fake encoder takes."""
V1, V2, TEI = "/v1/embeddings", "/v2/embed", "/embed"
DIALECTS = [(V1, "input"), (V2, "texts"), (TEI, "inputs")]
"""Path and field of the inputs of each."""


class WideEncoder(FakeEncoder):
    """Vectors of 16 numbers, enough for two bytes of bits."""

    def __init__(self) -> None:
        super().__init__(WIDE)

    def encode_tokenized(
        self,
        tokenized: Tokenized,
        roles: Role | Sequence[Role],
        *,
        heartbeat: Callable[[], None] | None = None,
    ) -> EncodedVectors:
        narrow = super().encode_tokenized(tokenized, roles, heartbeat=heartbeat)
        wide = np.kron(narrow.vectors, np.array([1, -0.5, 0.25, -2], np.float32))  # (N, 16)
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        return EncodedVectors(wide, narrow.padded_tokens)


def vector(text: str, role: Role = QUERY) -> np.ndarray:
    """Return what the replica must answer for a text."""
    return WideEncoder().encode([text], role).vectors[0]


class RecordedMetrics:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str, int]] = []
        self.rejections: list[tuple[str, str]] = []
        self.embeddings: list[tuple[Role, int, int]] = []
        self.cached: list[int] = []
        self.serializations: list[Role] = []

    def answered(self, role: str, dialect: str, status: int) -> None:
        self.answers.append((role, dialect, status))

    def rejected(self, role: str, reason: str) -> None:
        self.rejections.append((role, reason))

    def embedded(
        self, role: Role, *, n_tokens: int, cached: int, truncated: int, **seconds: float
    ) -> None:
        assert seconds.keys() == {"tokenize_s", "queue_s", "forward_s"}
        self.embeddings.append((role, n_tokens, truncated))
        self.cached.append(cached)

    def serialized(self, role: Role, seconds: float) -> None:
        self.serializations.append(role)


class App:
    """One replica's application and what it stands on."""

    def __init__(self, **settings: Any) -> None:
        self.encoder = WideEncoder()
        self.metrics = RecordedMetrics()
        self.settings = ServingSettings(**{"model": NAME, **settings})
        self._now = 0.0
        with patch("serving.embedding.LoadMeter", partial(LoadMeter, clock=self._clock)):
            self.service = EmbeddingService(self.encoder, self.settings, self.metrics)  # type: ignore[arg-type]
        self._looked_at = self._now
        self._written = _KeptLines()
        self._access_log = AccessLog(self._written)
        self.asgi = build_http_app(
            self.service,
            self.settings,
            self.metrics,  # type: ignore[arg-type]
            "1.2.3",
            self._access_log if self.settings.access_log else None,
        )
        self.forward_may_go_on = threading.Event()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.asgi), base_url="http://replica"
        )

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **options)

        return asyncio.run(asyncio.wait_for(send(), 20))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(
        self, path: str, _headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        return self.request("POST", path, json=body, headers=_headers)

    def post_text(self, path: str, body: str | bytes, **headers: str) -> httpx.Response:
        headers = {"content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.request("POST", path, content=body, headers=headers)

    def _clock(self) -> float:
        self._now = time.monotonic()
        return self._now

    def offered_tokens(self) -> int:
        """Tokens that clients wanted encoded since the last look, as the autoscaler is told."""
        rate = self.service.load.report()["offered_tokens_per_s"]
        elapsed_s, self._looked_at = self._now - self._looked_at, self._now
        return round(rate * elapsed_s)

    def access_lines(self) -> list[str]:
        """What the access log has by now."""
        self._access_log.flush()
        return self._written.text.splitlines()

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Forwards begin, and end only when this ends."""
        self.encoder.on_forward = lambda: self.forward_may_go_on.wait(20) and None
        try:
            yield
        finally:
            self.forward_may_go_on.set()

    async def a_forward_has_begun(self) -> None:
        while not self.encoder.forwards:  # noqa: ASYNC110 - they are counted in another thread
            await asyncio.sleep(0.001)


def embeddings(response: httpx.Response) -> list[Any]:
    """What each dialect gives for the inputs, in their order."""
    assert response.status_code == 200, response.text
    body = response.json()
    if isinstance(body, list):
        return body
    if "data" in body:
        assert [item["index"] for item in body["data"]] == list(range(len(body["data"])))
        return [item["embedding"] for item in body["data"]]
    found = body["embeddings"]
    return found if isinstance(found, list) else list(*found.values())


def check_vectors(response: httpx.Response, expected: Sequence[np.ndarray]) -> None:
    """Every number reads back to the very same float32."""
    found = np.array(embeddings(response), np.float32)
    assert found.tobytes() == np.array(expected, np.float32).tobytes()


def refusal(response: httpx.Response, status: int, kind: str = "invalid_request_error") -> str:
    """Check that an answer is an error in OpenAI's shape; return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    # Serve itself gives back an id that came with the request.
    assert ("x-request-id" in response.headers) != ("x-request-id" in response.request.headers)
    assert_error(response.content, status)
    error = error_of(response.content)
    assert (error["type"], error["param"]) == (kind, None)
    message: str = error["message"]
    return message


def run_scenario(scenario: Coroutine[Any, Any, None]) -> None:
    """Run requests that meet one another; 20 s at the most."""
    asyncio.run(asyncio.wait_for(scenario, 20))


class _KeptLines(logging.Handler):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"
