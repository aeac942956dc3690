"""What a query waits: at rates up to the knee, and beside documents that come in bulk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import uvloop

from benchmarks.endpoint.arrivals import arrivals
from benchmarks.endpoint.knee import KneeProtocol, climb, most_requests
from benchmarks.endpoint.load import closed_loop, open_loop
from benchmarks.endpoint.load_loops import Target
from benchmarks.endpoint.samples import Load, describe
from benchmarks.lines import Line

__all__ = ["DOCUMENTS_A_REQUEST", "TrafficProtocol", "measure_traffic"]

DOCUMENTS_A_REQUEST = 16
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of the requests/s at the knee."""
_SHARE_BESIDE_DOCUMENTS = 0.25
_DOCUMENT_CONNECTIONS = (0, 1, 2, 4)
_DRAIN_S = 5.0


@dataclass(frozen=True)
class TrafficProtocol(KneeProtocol):
    """How long what is measured.

    Attributes:
        cell_s: Each rate of queries alone.
        beside_s: Each number of document connections; a request of theirs takes long.
        rounds: Turns of all these cells.
    """

    cell_s: float = 6.0
    beside_s: float = 15.0
    rounds: int = 3


def measure_traffic(
    queries: Target,
    documents: Target,
    protocol: TrafficProtocol,
    say: Callable[[str, Line], None],
) -> Line:
    """Measure queries at several rates, alone and beside documents; return what the knee was.

    Queries come in an open loop, one a request. Documents come in a closed loop, so that each of
    their connections always has a request waiting.

    Args:
        queries: Where to send queries.
        documents: Where to send `DOCUMENTS_A_REQUEST` documents a request.
        protocol: How long, how often.
        say: Takes what a line measures, and the line.
    """
    knee, at_knee = climb(queries, protocol, say)
    for turn in range(1, protocol.rounds + 1):
        for share in _SHARES:
            rate = share * at_knee["requests_per_s"]
            load, _ = uvloop.run(_cell(queries, documents, rate, 0, protocol.cell_s, turn))
            say("rate", {"round": turn, "share_of_knee": share, **_at(rate), **describe(load)})
        for connections in _DOCUMENT_CONNECTIONS:
            rate = _SHARE_BESIDE_DOCUMENTS * at_knee["requests_per_s"]
            load, beside = uvloop.run(
                _cell(queries, documents, rate, connections, protocol.beside_s, turn)
            )
            figures = {**_at(rate), **describe(load), "documents": _of_documents(beside)}
            say(
                "queries beside documents",
                {"round": turn, "document_connections": connections, **figures},
            )
    return {"rounds": protocol.rounds, "knee_connections": knee, "knee": at_knee}


async def _cell(
    queries: Target, documents: Target, rate: float, connections: int, seconds: float, turn: int
) -> tuple[Load, Load | None]:
    """Send queries at a rate, and documents over so many connections at the same time."""
    times = arrivals(rate, seconds, limit=most_requests(seconds), seed=turn)
    arriving = open_loop(queries, times, drain_s=_DRAIN_S)
    if not connections:
        return await arriving, None
    in_bulk = closed_loop(documents, connections=connections, seconds=seconds, drain_s=_DRAIN_S)
    load, beside = await asyncio.gather(arriving, in_bulk)
    return load, beside


def _at(rate: float) -> Line:
    return {"rate": round(rate, 2)}


def _of_documents(load: Load | None) -> Line | None:
    if load is None:
        return None
    figures = describe(load)
    per_s = round(DOCUMENTS_A_REQUEST * (figures["requests_per_s"] or 0.0), 2)
    return {"documents_per_s": per_s, **figures}
