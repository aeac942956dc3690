"""Every vector of every answer is its own while clients of all manners do everything at once.

All dialects, both roles by every word and address for them, 1 to 128 inputs of 1 to 3,000 words,
every cut; among them clients that pipeline, dawdle, are refused, or go away before, while and after
their texts are encoded. Unit tests do the same with forwards that fail (test_mixed_requests.py).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from encoder.encoder import load_encoder
from encoder.settings import EncoderSettings
from encoder.space import Pooling, Role
from support.endpoints import Endpoint, serving
from support.mixed_clients import MixedClients
from support.mixed_requests import Entries, MixedRequests

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BODY_BYTES = 1_000_000
ROUNDS = ((1, 20), (8, 16), (64, 6))
"""Connections, and how often each does something."""
LIMITS = (
    *("--max-body-bytes", str(BODY_BYTES), "--max-buffered-bytes", str(BODY_BYTES)),
    *("--max-queued-tokens", "30000", "--max-queue-wait-s", "60"),
    *("--body-timeout-s", "3", "--vector-cache-bytes", "100000"),
)
"""Such that some of what the clients do is refused, and most is answered; some of it with vectors
that were kept."""


@pytest.fixture(scope="module")
def entries(tiny_model: Path) -> Iterator[Entries]:
    encoder = load_encoder(
        EncoderSettings(
            model=str(tiny_model),
            query_pooling=Pooling.MEAN,
            document_pooling=Pooling.CLS,
            num_threads=1,
        )
    )
    yield Entries(encoder, seed=0)
    encoder.close()


@pytest.fixture(scope="module")
def crowded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with serving(
        tmp_path_factory.mktemp("crowded"),
        *("--query-pooling", "mean", "--document-pooling", "cls", "--accept-token-arrays"),
        *LIMITS,
        model=str(tiny_model),
        environment={"RAY_metrics_report_interval_ms": "1000"},
    ) as endpoint:
        yield endpoint


def test_every_answer_is_right_and_nothing_stays_behind(crowded, entries):
    requests = partial(MixedRequests, entries, crowded.model, BODY_BYTES)
    clients = MixedClients(crowded.url, requests)
    [replica] = [pid for pid, name in crowded.running.descendants().items() if "Replica:" in name]

    held = []
    for seed, (connections, times) in enumerate(ROUNDS * 2):
        asyncio.run(clients.work(connections=connections, times=times, seed=seed))
        if connections == ROUNDS[-1][0]:
            held.append(held_by(replica))

    answered = {kind for kind, status in clients.answered if status == 200}
    for role in Role:
        for dialect in ("openai", "cohere v1", "cohere v2", "tei"):
            assert f"{dialect} {role.value}" in answered
    assert {status for _, status in clients.answered} >= {200, 400, 404, 405}
    [first, last] = held
    assert last["threads"] <= first["threads"], held
    assert last["sockets"] <= first["sockets"] + ROUNDS[-1][0], held
    assert queued_tokens_fall_to_zero(crowded)
    assert "ray_twofold_cached_inputs_total{" in exported_by(crowded)
    # There is room for exactly this one, unless bytes of others are still counted.
    body = b'{"input": "a"}'.ljust(BODY_BYTES)
    alone = httpx.post(f"{crowded.url}/v1/embeddings", content=body, timeout=60)
    assert alone.status_code == 200, alone.text


def held_by(pid: int) -> dict[str, int]:
    """Return how many threads and sockets a process has."""
    files = list(Path(f"/proc/{pid}/fd").iterdir())
    return {"threads": len(list(Path(f"/proc/{pid}/task").iterdir())), "sockets": len(files)}


def exported_by(endpoint: Endpoint) -> str:
    """Return what Ray's exporter says now."""
    return httpx.get(f"http://127.0.0.1:{endpoint.metrics_port}/metrics", timeout=10).text


def queued_tokens_fall_to_zero(endpoint: Endpoint) -> bool:
    """Wait until what Ray exports has been told of the end."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        text = exported_by(endpoint)
        if set(re.findall(r"^ray_twofold_queued_tokens{.*} (\S+)$", text, re.MULTILINE)) == {"0.0"}:
            return True
        time.sleep(0.2)
    return False
