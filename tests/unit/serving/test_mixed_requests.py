"""Requests of all dialects at once in one replica: each gets its own vectors, and nothing is kept.

With a fake encoder, whose vectors tell text, role and length: no Ray, no socket. Over HTTP, with a
model, the same is in tests/integration/serving/test_mixed_load.py.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from encoder.space import Role
from support.answers import assert_error
from support.replica_app import TEI, V1, V2, App, WideEncoder, check_vectors, run_scenario

MAX_TOKENS = 300
"""Of a request; as many may wait."""


@dataclass(frozen=True)
class Asked:
    """A request, and how long its client waits.

    Attributes:
        path: Says the dialect.
        texts: Its inputs.
        role: Their role.
        keeps_end: Whether the beginning of long texts is cut off.
        after_ms: When it is sent.
        waits_ms: Then it is cancelled, as Serve does when a client goes away; None waits.
    """

    path: str
    texts: list[str]
    role: Role
    keeps_end: bool
    after_ms: float
    waits_ms: float | None

    @property
    def body(self) -> dict[str, Any]:
        role, where = self.role.value, "START" if self.keeps_end else "END"
        if self.path == V1:
            return {"input": self.texts, "input_type": role, "truncate": where}
        if self.path == V2:
            return {"texts": self.texts, "input_type": f"search_{role}", "truncate": where}
        side = "left" if self.keeps_end else "right"
        return {"inputs": self.texts, "prompt_name": role, "truncation_direction": side}

    @property
    def n_tokens(self) -> int:
        return int(WideEncoder().tokenize(self.texts, self.role).n_tokens.sum())

    @property
    def vectors(self) -> np.ndarray:
        encoder = WideEncoder()
        tokenized = encoder.tokenize(self.texts, self.role, keep_end=self.keeps_end)
        return encoder.encode_tokenized(tokenized, self.role).vectors


words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12).map(" ".join)
asked = st.builds(
    Asked,
    path=st.sampled_from([V1, V2, TEI]),
    texts=st.lists(words, min_size=1, max_size=12)
    | st.sampled_from([["a b c"] * 300, ["a b", "poison", "c"], ["poison"], ["a b c d"] * 80]),
    role=st.sampled_from(Role),
    keeps_end=st.booleans(),
    after_ms=st.floats(0, 5),
    waits_ms=st.none() | st.none() | st.floats(0, 5),
)


# Not made smaller: what fails depends on when threads run, and the search would take minutes.
@settings(deadline=None, max_examples=40, phases=[Phase.reuse, Phase.generate])
@given(st.lists(asked, min_size=2, max_size=24))
def test_every_answer_is_its_own_requests_and_nothing_is_held_when_all_have_gone(
    requests: list[Asked],
) -> None:
    async def scenario() -> None:
        app = App(
            max_request_tokens=MAX_TOKENS,
            max_queued_tokens=MAX_TOKENS,
            max_buffered_bytes=20_000,
        )
        async with app.client() as client:
            tasks = [
                asyncio.create_task(_ask(client, request, str(number)))
                for number, request in enumerate(requests)
            ]
            await asyncio.wait(tasks)
        lines = {line["request_id"]: line for line in map(json.loads, app.access_lines())}
        for number, (request, task) in enumerate(zip(requests, tasks, strict=True)):
            if task.exception() is None:
                _check(request, task.result())
                _check_line(request, task.result(), lines[str(number)])
            else:
                assert isinstance(task.exception(), TimeoutError)
                assert request.waits_ms is not None
        await app.service.close()
        assert app.service.load.queued_tokens == 0
        gate = app.asgi.state.gate
        assert (gate.buffered.held, gate.unread.held) == (0, 0)

    run_scenario(scenario())


def _check(request: Asked, response: httpx.Response) -> None:
    status = response.status_code
    if status == 200:
        check_vectors(response, request.vectors)
        assert response.headers["x-embedding-role"] == request.role.value
        long = [i for i, text in enumerate(request.texts) if len(text.split()) > 8]
        assert response.headers["x-truncated-count"] == str(len(long))
        assert _told_tokens(response.json()) in (request.n_tokens, None)
    elif status == 500:
        assert "poison" in request.texts
        assert_error(response.content, 500, f"input {request.texts.index('poison')};")
    elif status == 413:
        assert request.n_tokens > MAX_TOKENS
    else:
        assert status == 429
    if status != 200:
        assert_error(response.content, status)


def _check_line(request: Asked, response: httpx.Response, line: dict[str, Any]) -> None:
    """Check what the access log says of a request."""
    assert (line["path"], line["status"]) == (request.path, response.status_code)
    if response.status_code == 200:
        told = (line["role"], line["inputs"], line["tokens"])
        assert told == (request.role.value, len(request.texts), request.n_tokens)


def _told_tokens(body: Any) -> int | None:
    """Return how many tokens an answer says, if its dialect says it."""
    if isinstance(body, list):
        return None
    if "usage" in body:
        return body["usage"]["total_tokens"]
    return body["meta"]["billed_units"]["input_tokens"]


async def _ask(client: httpx.AsyncClient, request: Asked, request_id: str) -> httpx.Response:
    await asyncio.sleep(request.after_ms / 1e3)
    waits_s = None if request.waits_ms is None else request.waits_ms / 1e3
    async with asyncio.timeout(waits_s):
        return await client.post(
            request.path, json=request.body, headers={"x-request-id": request_id}
        )
