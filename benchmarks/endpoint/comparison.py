"""What the cells of all rounds say together: medians, and the ratios that the endpoint is held to.

A ratio is the median of the rounds' ratios: within a round the systems take turns on the same
machine, minutes apart at the most.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.lines import Line

__all__ = ["MANY_TEXTS", "Cell", "Cells", "compare", "harmonic_bound"]

_OURS = "twofold"
_INFINITY = ("infinity torch", "infinity onnx")
_PEERS = (*_INFINITY, "sentence-transformers torch")
_LONE, _MANY = 1, 64
MANY_TEXTS = 512
"""Texts of a call of the bare encoder, beside as many as there are connections."""


@dataclass(frozen=True)
class Cell:
    """One load of one system in one round.

    Attributes:
        system: Its label; "twofold", "echo", "bare" and the peers'.
        round: From 1.
        at: Connections of a closed loop, requests/s of an open one, texts of a call for "bare".
        figures: As `describe` returns them.
    """

    system: str
    round: int
    at: float
    figures: Line


class Cells:
    """The cells of closed loops, or those of open ones, to be asked for figures.

    Args:
        cells: In any order.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._by_key = {(c.system, c.at, c.round): c.figures for c in cells}

    @property
    def rounds(self) -> list[int]:
        """The rounds that have cells."""
        return sorted({round_ for _, _, round_ in self._by_key})

    def value(self, system: str, at: float, round_: int, name: str) -> float | None:
        """Return a figure; None where it was not measured. A rate of 0 was."""
        found: float | None = self._by_key.get((system, at, round_), {}).get(name)
        return found

    def medians(self) -> Line:
        """Return the medians over the rounds: system -> at -> figure -> number.

        `errors` are those of all rounds together.
        """
        medians: Line = {}
        for system, at in dict.fromkeys((s, at) for s, at, _ in sorted(self._by_key)):
            medians.setdefault(system, {})[f"{at:g}"] = {
                name: self._median(system, at, name)
                for name in ("requests_per_s", "p50_ms", "p99_ms")
            }
            errors = (self.value(system, at, round_, "errors") or 0 for round_ in self.rounds)
            medians[system][f"{at:g}"]["errors"] = sum(errors)
        return medians

    def _median(self, system: str, at: float, name: str) -> float | None:
        values = (self.value(system, at, round_, name) for round_ in self.rounds)
        found = [value for value in values if value is not None]
        return round(statistics.median(found), 3) if found else None


def harmonic_bound(echo_per_s: float, bare_per_s: float) -> float:
    """Return the requests/s of doing one after the other: 1 / (1 / echo + 1 / bare)."""
    return 1 / (1 / echo_per_s + 1 / bare_per_s)


def compare(closed: Sequence[Cell], opened: Sequence[Cell]) -> Line:
    """Return medians and ratios; a ratio is left out where one of its parts was not measured.

    Each ratio has its `median`, the `range` over the `rounds` that have one and, where the endpoint
    is held to one, the `target` and whether it is `met`: in no case where a round has none.

    Args:
        closed: Closed loops, and the bare encoder.
        opened: Open loops.
    """
    table = Cells(closed)
    ratios: Line = {}

    def add(name: str, of_round: Callable[[int], float | None], target: str | None = None) -> None:
        found = [ratio for ratio in map(of_round, table.rounds) if ratio is not None]
        if found:
            ratios[name] = _ratio(found, target, of=len(table.rounds))

    add("p50_at_1_to_infinitys_best", lambda r: _lone_latency(table, r), "< 0.3333")
    for peer, target in zip(_PEERS, (">= 4", ">= 2", None), strict=True):
        add(
            f"requests_per_s_at_64_to_{peer.replace(' ', '_')}",
            lambda r, peer=peer: _throughput(table, peer, r),  # type: ignore[misc]  # bound early
            target,
        )
    add("requests_per_s_at_64_to_echo_and_bare", lambda r: _share(table, _MANY, r), ">= 0.8")
    # A stricter bound: the encoder on so many texts at once, sorted by length, hardly pads.
    add("requests_per_s_at_64_to_echo_and_bare_512", lambda r: _share(table, MANY_TEXTS, r))
    return {
        "medians": table.medians(),
        "open_loop_medians": Cells(opened).medians(),
        "ratios": ratios,
    }


def _lone_latency(table: Cells, round_: int) -> float | None:
    """p50 of ours over that of Infinity's fastest engine, one connection each."""
    ours = table.value(_OURS, _LONE, round_, "p50_ms")
    theirs = [table.value(system, _LONE, round_, "p50_ms") for system in _INFINITY]
    measured = [value for value in theirs if value is not None]
    return ours / min(measured) if ours is not None and measured else None


def _throughput(table: Cells, peer: str, round_: int) -> float | None:
    ours = table.value(_OURS, _MANY, round_, "requests_per_s")
    theirs = table.value(peer, _MANY, round_, "requests_per_s")
    # A peer that answered nothing is not a peer that is infinitely slower.
    return ours / theirs if ours is not None and theirs else None


def _share(table: Cells, bare_texts: int, round_: int) -> float | None:
    """Ours over what an empty application and the encoder alone allow together."""
    ours = table.value(_OURS, _MANY, round_, "requests_per_s")
    echo = table.value("echo", _MANY, round_, "requests_per_s")
    bare = table.value("bare", bare_texts, round_, "requests_per_s")
    if ours is None or not echo or not bare:
        return None
    return ours / harmonic_bound(echo, bare)


def _ratio(values: Sequence[float], target: str | None, *, of: int) -> Line:
    median = statistics.median(values)
    ratio: Line = {
        "median": round(median, 4),
        "range": [round(min(values), 4), round(max(values), 4)],
        "rounds": len(values),
    }
    if target is not None:
        sign, number = target.split()
        is_met = median < float(number) if sign == "<" else median >= float(number)
        ratio |= {"target": target, "met": is_met and len(values) == of}
    return ratio
