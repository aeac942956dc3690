"""Queries at rates up to the knee, and beside documents."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks.endpoint import traffic
from benchmarks.endpoint.load_loops import Target
from benchmarks.endpoint.samples import Load, Sample
from benchmarks.endpoint.traffic import DOCUMENTS_A_REQUEST, TrafficProtocol, measure_traffic

QUERIES, DOCUMENTS = Target(1, [b"q"]), Target(1, [b"d"])
PROTOCOL = TrafficProtocol(cell_s=2.0, beside_s=3.0, rounds=2)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What is said of a server with its knee at 8 connections and 100 requests/s."""

    under_way: list[Target] = []

    async def both(target: Target) -> None:
        under_way.append(target)
        for _ in range(3):
            await asyncio.sleep(0)

    async def arriving(target: Target, times: list[float], **_: Any) -> Load:
        assert target is QUERIES
        await both(target)
        # An arrival shows what is sent meanwhile: 10 ms alone, 20 ms beside documents.
        seconds = 0.01 * len(under_way)
        under_way.clear()
        return Load([Sample(at_s, seconds, 200) for at_s in times], 2.0)

    async def in_bulk(target: Target, *, connections: int, seconds: float, **_: Any) -> Load:
        assert (target, seconds) == (DOCUMENTS, 3.0)
        await both(target)
        return Load([Sample(0.0, 0.5, 200)] * connections, seconds)

    monkeypatch.setattr(traffic, "climb", lambda *_: (8, {"requests_per_s": 100.0}))
    monkeypatch.setattr(traffic, "open_loop", arriving)
    monkeypatch.setattr(traffic, "closed_loop", in_bulk)
    said: list[tuple[str, dict[str, Any]]] = []
    summary = measure_traffic(QUERIES, DOCUMENTS, PROTOCOL, lambda *line: said.append(line))
    assert summary == {"rounds": 2, "knee_connections": 8, "knee": {"requests_per_s": 100.0}}
    return said


def test_each_round_has_every_rate_up_to_the_knee(lines):
    alone = [line for measures, line in lines if measures == "rate"]
    rates = [(line["round"], line["rate"]) for line in alone]
    assert rates == [(turn, rate) for turn in (1, 2) for rate in (10.0, 25.0, 50.0, 75.0, 90.0)]
    assert {line["p50_ms"] for line in alone} == {10.0}


def test_documents_beside_queries_are_counted_one_by_one(lines):
    beside = [line for measures, line in lines if measures == "queries beside documents"]
    assert [line["document_connections"] for line in beside] == [0, 1, 2, 4] * 2
    assert [line["p50_ms"] for line in beside] == [10.0, 20.0, 20.0, 20.0] * 2
    assert {line["rate"] for line in beside} == {25.0}
    assert beside[0]["documents"] is None
    # A request of each connection in the three seconds.
    rates = [line["documents"]["documents_per_s"] for line in beside[1:4]]
    each_s = DOCUMENTS_A_REQUEST / 3.0
    assert rates == pytest.approx([each_s, 2 * each_s, 4 * each_s], abs=0.2)


def test_each_round_has_arrivals_of_its_own(lines):
    counts = [line["requests"] for measures, line in lines if measures == "rate"]
    assert counts[:5] != counts[5:]
