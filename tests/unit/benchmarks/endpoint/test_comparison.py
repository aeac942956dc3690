"""What the summary says of the cells."""

from __future__ import annotations

import pytest

from benchmarks.endpoint.comparison import Cell, compare, harmonic_bound


def cell(system: str, at: float, per_s: float, p50_ms: float = 1.0, round_: int = 1) -> Cell:
    return Cell(system, round_, at, {"requests_per_s": per_s, "p50_ms": p50_ms, "p99_ms": 9.0})


def test_the_bound_is_that_of_doing_one_after_the_other():
    assert harmonic_bound(1_000, 1_000) == pytest.approx(500)
    assert harmonic_bound(2_000, 500) == pytest.approx(400)


def test_the_share_is_taken_against_echo_and_bare_of_the_same_round():
    cells = [
        *(cell("echo", 64, 2_000, round_=r) for r in (1, 2)),
        *(cell("bare", 64, 500 * r, round_=r) for r in (1, 2)),
        *(cell("bare", 512, 2_000, round_=r) for r in (1, 2)),
        cell("twofold", 64, 360, round_=1),
        cell("twofold", 64, 600, round_=2),
    ]
    ratios = compare(cells, [])["ratios"]
    # Bounds of 400 and 666.7: shares of 0.9 and 0.9.
    assert ratios["requests_per_s_at_64_to_echo_and_bare"] == {
        "median": 0.9,
        "range": [0.9, 0.9],
        "rounds": 2,
        "target": ">= 0.8",
        "met": True,
    }
    assert ratios["requests_per_s_at_64_to_echo_and_bare_512"]["range"] == [0.36, 0.6]


def test_the_lone_latency_is_set_against_infinitys_best_engine():
    cells = [
        cell("twofold", 1, 100, p50_ms=4.0),
        cell("infinity torch", 1, 10, p50_ms=30.0),
        cell("infinity onnx", 1, 10, p50_ms=10.0),
        cell("sentence-transformers torch", 1, 10, p50_ms=5.0),
    ]
    ratio = compare(cells, [])["ratios"]["p50_at_1_to_infinitys_best"]
    assert ratio["median"] == 0.4
    assert ratio["met"] is False


def test_throughput_is_held_against_each_engine_apart():
    cells = [
        cell("twofold", 64, 400),
        cell("infinity torch", 64, 100),
        cell("infinity onnx", 64, 201),
        cell("sentence-transformers torch", 64, 50),
    ]
    ratios = compare(cells, [])["ratios"]
    assert ratios["requests_per_s_at_64_to_infinity_torch"]["met"] is True
    assert ratios["requests_per_s_at_64_to_infinity_onnx"]["met"] is False
    assert "met" not in ratios["requests_per_s_at_64_to_sentence-transformers_torch"]


def test_what_was_not_measured_has_no_ratio():
    summary = compare([cell("twofold", 1, 100), cell("twofold", 64, 400)], [])
    assert summary["ratios"] == {}
    assert summary["medians"]["twofold"]["64"]["requests_per_s"] == 400


def nothing(system: str, at: float, round_: int) -> Cell:
    """A cell in which every request failed."""
    figures = {"requests_per_s": 0.0, "p50_ms": None, "p99_ms": None, "errors": 70}
    return Cell(system, round_, at, figures)


def test_a_round_in_which_we_answered_nothing_counts_as_nothing():
    cells = [
        cell("twofold", 64, 400),
        *(nothing("twofold", 64, round_) for round_ in (2, 3)),
        *(cell("infinity torch", 64, 100, round_=round_) for round_ in (1, 2, 3)),
    ]
    summary = compare(cells, [])
    assert summary["medians"]["twofold"]["64"]["requests_per_s"] == 0
    assert summary["medians"]["twofold"]["64"]["errors"] == 140
    ratio = summary["ratios"]["requests_per_s_at_64_to_infinity_torch"]
    assert ratio == {"median": 0, "range": [0, 4], "rounds": 3, "target": ">= 4", "met": False}


@pytest.mark.parametrize("silent", ["twofold", "infinity torch"])
def test_a_ratio_that_a_round_lacks_is_not_met(silent):
    figures = {"twofold": (1.0, 400), "infinity torch": (9.0, 9)}
    cells = [
        cell(system, at, per_s, p50_ms, round_)
        if (system, round_) != (silent, 2)
        else nothing(system, at, round_)
        for system, (p50_ms, per_s) in figures.items()
        for at in (1, 64)
        for round_ in (1, 2)
    ]
    ratios = compare(cells, [])["ratios"]
    assert ratios["p50_at_1_to_infinitys_best"]["rounds"] == 1
    assert ratios["p50_at_1_to_infinitys_best"]["met"] is False
    answered = compare([c for c in cells if c.round == 1], [])["ratios"]
    assert answered["p50_at_1_to_infinitys_best"]["met"] is True


def test_open_loops_have_medians_of_their_own():
    opened = [cell("twofold", 20.0, per_s, round_=r) for r, per_s in ((1, 19), (2, 20), (3, 21))]
    summary = compare([], opened)
    assert summary["open_loop_medians"]["twofold"]["20"]["requests_per_s"] == 20
    assert summary["medians"] == {}
