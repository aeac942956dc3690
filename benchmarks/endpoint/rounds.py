"""The rounds: in each, every system has its turn, with the same loads and the same queries."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import uvloop

from benchmarks.endpoint.arrivals import arrivals
from benchmarks.endpoint.bare import BareEncoder
from benchmarks.endpoint.comparison import MANY_TEXTS, Cell, compare
from benchmarks.endpoint.load import closed_loop, open_loop
from benchmarks.endpoint.load_loops import Target
from benchmarks.endpoint.requests import engine_of, http_requests
from benchmarks.endpoint.samples import describe
from benchmarks.endpoint.server import Server
from benchmarks.endpoint.servers import Servers
from benchmarks.endpoint.systems import System
from benchmarks.lines import Line

__all__ = ["Rounds", "RoundsProtocol"]

_QUERIES_A_ROUND = 1_000
"""A round begins so many queries further on than the one before."""


@dataclass(frozen=True)
class RoundsProtocol:
    """What is measured.

    Attributes:
        rounds: Turns of every system.
        seconds: Of a cell.
        warm_up_s: Before each closed loop.
        connections: Of the closed loops.
        rates: Of the open loops, in requests/s.
        max_requests: Of a cell at the most.
    """

    rounds: int
    seconds: float
    warm_up_s: float
    connections: Sequence[int]
    rates: Sequence[float]
    max_requests: int = 100_000

    def with_given(self, **values: object) -> RoundsProtocol:
        """Return this with the values that are not None."""
        names = {field.name for field in fields(self)}
        given = {name: v for name, v in values.items() if name in names and v is not None}
        return replace(self, **given)  # type: ignore[arg-type]  # of any field


class Rounds:
    """All cells of a run; for `contextlib.closing`.

    Args:
        protocol: What is measured.
        queries: One a request, in turn.
        work: For the bare encoder's queries and log.
        say: Takes what a line measures, and the line.
    """

    def __init__(
        self,
        protocol: RoundsProtocol,
        queries: Sequence[str],
        *,
        work: Path,
        say: Callable[[str, Line], None],
    ) -> None:
        self._protocol = protocol
        self._queries = queries
        self._work = work
        self._say = say
        self._closed: list[Cell] = []
        self._opened: list[Cell] = []
        self._servers: list[Server] = []
        self._targets: dict[str, Target] = {}
        self._engines: dict[str, str] = {}
        self._bare: BareEncoder | None = None

    def close(self) -> None:
        """End the bare encoder."""
        if self._bare is not None:
            self._bare.end()

    def start(self, servers: Servers, systems: Sequence[System], bare: Sequence[str]) -> None:
        """Start every system, and the bare encoder.

        Args:
            servers: Keeps them.
            systems: In the order of their turns.
            bare: Flags of `twofold serve` for the bare encoder.

        Raises:
            BenchmarkError: One does not start, or does something else than the others.
        """
        for system in systems:
            server, went = servers.start(system)
            self._servers.append(server)
            self._targets[system.label] = Target(
                system.port, http_requests(self._queries, system.port)
            )
            engine = system.engine
            if system.name == "twofold":
                with servers.turn(server):
                    engine = engine_of(system.port)
            self._engines[system.label] = engine
            self._say("start", {"system": system.name, "engine": engine, **went})
        file = self._work / "queries.json"
        file.write_text(json.dumps(self._queries))
        self._bare = BareEncoder(bare, file, self._work / "bare.log")
        provenance = self._bare.loaded
        self._engines["bare"] = f"{provenance['backend']} {provenance['dtype']}"
        self._say("start", {"system": "bare", "engine": self._engines["bare"], **provenance})

    def run(self, servers: Servers) -> Line:
        """Run all rounds; return the summary."""
        for round_ in range(1, self._protocol.rounds + 1):
            for server in self._servers:
                with servers.turn(server):
                    self._closed_loops(server.system, round_)
                    if server.system.embeds:
                        self._open_loops(server.system, round_)
            self._bare_cells(round_)
        return {"rounds": self._protocol.rounds, **compare(self._closed, self._opened)}

    def _closed_loops(self, system: System, round_: int) -> None:
        for count in self._protocol.connections:
            load = uvloop.run(
                closed_loop(
                    self._targets[system.label],
                    connections=count,
                    seconds=self._protocol.seconds,
                    warm_up_s=self._protocol.warm_up_s,
                    max_requests=self._protocol.max_requests,
                    first=round_ * _QUERIES_A_ROUND,
                )
            )
            figures = describe(load)
            self._closed.append(Cell(system.label, round_, count, figures))
            self._line("closed loop", system, round_, {"connections": count, **figures})

    def _open_loops(self, system: System, round_: int) -> None:
        able = max(
            (cell.figures["requests_per_s"] or 0.0)
            for cell in self._closed
            if cell.system == system.label and cell.round == round_
        )
        for rate in self._protocol.rates:
            if rate > able:
                # Its queue would grow for as long as is measured, and so would its latency.
                reason = f"above its {able:g} requests/s in closed loops"
                self._line("open loop", system, round_, {"rate": rate, "left_out": reason})
                continue
            times = arrivals(
                rate, self._protocol.seconds, limit=self._protocol.max_requests, seed=round_
            )
            first = round_ * _QUERIES_A_ROUND
            figures = describe(
                uvloop.run(open_loop(self._targets[system.label], times, first=first))
            )
            self._opened.append(Cell(system.label, round_, rate, figures))
            self._line("open loop", system, round_, {"rate": rate, **figures})

    def _bare_cells(self, round_: int) -> None:
        assert self._bare is not None
        for count in (*self._protocol.connections, MANY_TEXTS):
            figures = self._bare.measure(
                count,
                self._protocol.seconds,
                self._protocol.warm_up_s,
                round_ * _QUERIES_A_ROUND,
            )
            self._closed.append(Cell("bare", round_, count, figures))
            which = {"system": "bare", "engine": self._engines["bare"], "texts_a_call": count}
            self._say("bare encoder", {"round": round_, **which, **figures})

    def _line(self, measures: str, system: System, round_: int, figures: Line) -> None:
        which = {"system": system.name, "engine": self._engines[system.label] or None}
        self._say(measures, {"round": round_, **which, **figures})
