"""Where the knee is, and when full speed is back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.endpoint import knee, overload
from benchmarks.endpoint.knee import find_knee
from benchmarks.endpoint.load_loops import Target
from benchmarks.endpoint.overload import recovery_s
from benchmarks.endpoint.samples import Load, Sample, describe


def steady(per_s: int, begin_s: float, end_s: float, status: int = 200) -> list[Sample]:
    """Requests that take no time, at even distances."""
    count = round((end_s - begin_s) * per_s)
    return [Sample(begin_s + (i + 0.5) / per_s, 0.0, status) for i in range(count)]


def test_the_knee_is_where_nine_tenths_of_the_best_are_reached():
    assert find_knee({1: 100, 4: 300, 8: 359, 16: 360, 64: 400}) == 16


def test_a_server_that_gets_no_faster_has_its_knee_at_one_connection():
    assert find_knee({1: 100, 2: 99, 4: 101}) == 1


@pytest.mark.parametrize(
    ("per_s_by_connections", "errors_from", "climbed", "found"),
    [
        ({1: 100, 2: 200, 4: 400, 8: 800, 16: 1600, 32: 1500, 64: 1400}, 9_999, 64, 16),
        ({1: 100, 2: 200, 4: 400, 8: 800}, 8, 8, 4),
        ({2**n: 100 * 2**n for n in range(11)}, 9_999, 1_024, 1_024),
    ],
    ids=["falls", "refuses", "never ends"],
)
def test_connections_double_until_throughput_falls_or_something_is_refused(
    monkeypatch, per_s_by_connections, errors_from, climbed, found
):
    def closed(_: Target, connections: int, seconds: float, __: float) -> Load:
        samples = steady(per_s_by_connections[connections], 0, seconds)
        # One of hundreds is no limit.
        refused = [Sample(0, 0, 429)] * (50 if connections >= errors_from else 1)
        return Load([*samples, *refused], seconds)

    monkeypatch.setattr(knee, "closed", closed)
    said: list[tuple[str, dict[str, Any]]] = []
    target = Target(1, [b"q"])
    protocol = knee.KneeProtocol(step_s=1.0)
    connections, _ = knee.climb(target, protocol, lambda *line: said.append(line))
    assert connections == found
    assert [line["connections"] for measures, line in said if measures == "step"][-1] == climbed


def test_a_knee_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        find_knee({})


def test_full_speed_at_once():
    assert recovery_s(steady(100, 0, 5), full_per_s=100, seconds=5) == 0.0


def test_refused_requests_are_no_speed():
    samples = [*steady(100, 0, 2, status=429), *steady(100, 2, 5)]
    assert recovery_s(samples, full_per_s=100, seconds=5) == 2.0


def test_one_good_window_between_bad_ones_is_not_full_speed():
    samples = [*steady(100, 0.5, 1.0), *steady(100, 3.0, 5.0)]
    assert recovery_s(samples, full_per_s=100, seconds=5) == 3.0


def test_full_speed_that_does_not_come_back():
    assert recovery_s(steady(50, 0, 5), full_per_s=100, seconds=5) is None


TARGET = Target(0, [b""])


@pytest.mark.parametrize(("rate", "is_cut"), [(100, False), (15_000, False), (40_000, True)])
def test_an_open_loop_has_all_its_arrivals_or_says_that_it_was_cut(
    monkeypatch: pytest.MonkeyPatch, rate: float, is_cut: bool
):
    sent: list[float] = []

    async def sends(_: Target, times: list[float], **__: Any) -> Load:
        sent.extend(times)
        return Load([], times[-1], stopped=times[-1])

    monkeypatch.setattr(overload, "open_loop", sends)
    figures = describe(overload._open(TARGET, rate, 2.0))

    assert len(sent) <= 40_000
    if is_cut:
        assert figures["cut_after_s"] == pytest.approx(1.0, rel=0.05)
    else:
        assert len(sent) == pytest.approx(2.0 * rate, rel=0.2)
        assert "cut_after_s" not in figures


def test_a_closed_loop_may_have_as_many_requests_as_one_client_sends_in_its_time(
    monkeypatch: pytest.MonkeyPatch,
):
    most: list[int] = []

    async def sends(_: Target, *, max_requests: int, **__: Any) -> Load:
        most.append(max_requests)
        return Load([], 1.0)

    monkeypatch.setattr(knee, "closed_loop", sends)
    for seconds, warm_up_s in ((60.0, 0.0), (2.0, 1.0)):
        knee.closed(TARGET, 8, seconds, warm_up_s)

    assert most == [1_200_000, 60_000]


def a_server_of(requests_per_s: dict[int, float]) -> Callable[..., Load]:
    """`closed`, of a server that answers so many at so many connections."""

    def closed(_: Target, connections: int, seconds: float, __: float) -> Load:
        answers = round(requests_per_s.get(connections, 0.0) * seconds)
        return Load([Sample(0.0, 0.01, 200)] * answers, seconds)

    return closed


def test_the_ladder_is_climbed_and_the_knee_measured_once_more(monkeypatch: pytest.MonkeyPatch):
    speeds = {1: 10.0, 2: 20.0, 4: 40.0, 8: 75.0, 16: 80.0, 32: 80.0, 64: 78.0, 128: 60.0}
    monkeypatch.setattr(knee, "closed", a_server_of(speeds))
    said: list[tuple[str, int, float]] = []

    found, figures = knee.climb(
        TARGET,
        knee.KneeProtocol(),
        lambda measures, line: said.append((measures, line["connections"], line["requests_per_s"])),
    )

    assert (found, figures["requests_per_s"]) == (8, 75.0)
    assert said == [*(("step", count, rate) for count, rate in speeds.items()), ("knee", 8, 75.0)]


def test_a_server_that_answers_nothing_has_no_knee(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(knee, "closed", a_server_of({}))
    with pytest.raises(ValueError, match="expected answers at 1 connections"):
        knee.climb(TARGET, knee.KneeProtocol(), lambda *_: None)
