"""How loaded a replica says it is: on a clock that the test moves."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.load import LoadMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def meter(batch_tokens: int = 1000) -> tuple[LoadMeter, Clock]:
    clock = Clock()
    return LoadMeter(batch_tokens, clock), clock


def test_offered_tokens_are_told_per_second_since_the_last_report():
    load, clock = meter()
    clock.now += 2
    load.offered(300, 3)
    load.offered(100, 1)
    assert load.report()["offered_tokens_per_s"] == pytest.approx(200)
    clock.now += 4
    load.offered(100, 1)
    assert load.report()["offered_tokens_per_s"] == pytest.approx(25)
    clock.now += 1
    assert load.report()["offered_tokens_per_s"] == 0


def test_a_request_that_nobody_read_is_offered_as_an_input_of_the_usual_size_or_of_its_least():
    load, clock = meter()
    for _ in range(100):
        load.offered(20, 1)
    load.report()
    clock.now += 1
    load.offered_unread(3)
    load.offered_unread(50)
    assert load.report()["offered_tokens_per_s"] == pytest.approx(70)
    assert load.expected_tokens(1) == 20, "a guess is not learned from"


def test_two_reports_at_the_same_moment_do_not_divide_by_zero():
    load, _ = meter()
    assert load.report()["offered_tokens_per_s"] == 0


def test_the_wait_is_the_mean_of_those_answered_since_the_last_report():
    load, _ = meter()
    load.waited(0.1)
    load.waited(0.3)
    assert load.report()["queue_wait_s"] == pytest.approx(0.2)
    assert load.report()["queue_wait_s"] == 0
    load.waited(0.4)
    assert load.report()["queue_wait_s"] == pytest.approx(0.4)


def test_a_meter_that_nobody_asks_for_its_report_does_not_grow():
    # Serve asks an endpoint with a fixed number of replicas never.
    load, _ = meter()

    def size() -> int:
        return len(pickle.dumps([value for value in vars(load).values() if not callable(value)]))

    before = size()
    for _ in range(10_000):
        load.offered(10, 1)
        load.enter(10)
        load.waited(0.1)
        load.encoded(10, 10, 0.1, 1)
        load.leave(10)
    assert size() < before + 1000


def test_the_first_forward_is_the_first_measure_of_capacity_however_small():
    load, _ = meter()
    assert load.report()["capacity_tokens_per_s"] == 0
    load.encoded(10, 10, 0.1, 1)
    assert load.report()["capacity_tokens_per_s"] == pytest.approx(100)


def test_a_forward_of_less_than_a_third_of_its_budget_cannot_show_that_full_ones_are_slower():
    load, _ = meter(batch_tokens=1000)
    load.encoded(1000, 1000, 0.1, 1)
    for tokens in (3, 250, 333):
        load.encoded(tokens, tokens, 0.09, tokens / 1000)
    assert load.tokens_per_s == pytest.approx(10_000)
    load.encoded(334, 334, 0.1, 0.334)
    assert 3_340 < load.tokens_per_s < 10_000


def test_parts_of_forwards_do_not_make_forwards_smaller_and_so_the_parts_dearer():
    load, _ = meter(batch_tokens=100_000)
    load.encoded(1000, 1000, 0.1, 1)
    for _ in range(500):
        part = load.batch_tokens // 4
        load.encoded(part, part, 0.02 + part / 12_000, 0.25)
    assert load.batch_tokens == 1000


def test_a_small_forward_that_takes_longer_than_a_full_one_shows_that_the_rate_is_too_high():
    load, _ = meter(batch_tokens=100_000)
    load.encoded(1000, 1000, 0.1, 1)
    for _ in range(100):  # the machine became ten times slower, and no full forward comes
        part = load.batch_tokens // 4
        load.encoded(part, part, part / 1000, 0.25)
    assert 1000 <= load.tokens_per_s < 4500


def test_whether_the_rate_was_told_lately_is_known():
    load, clock = meter()
    assert not load.measured_within(60)
    clock.now += 100
    load.encoded(1000, 1000, 0.1, 1)
    clock.now += 50
    load.encoded(10, 10, 0.05, 0.01)  # tells nothing
    assert load.measured_within(60)
    assert not load.measured_within(40)


def test_a_forward_of_any_size_that_is_faster_than_the_rate_shows_that_the_rate_is_too_low():
    load, _ = meter(batch_tokens=1000)
    load.encoded(1000, 1000, 10.0, 1)  # the machine stood still for a while
    for _ in range(50):
        load.encoded(20, 20, 0.01, 0.02)
    assert load.tokens_per_s == pytest.approx(2000, rel=0.01)


def test_a_forward_holds_what_takes_a_tenth_of_a_second_within_bounds():
    load, _ = meter(batch_tokens=4096)
    assert load.batch_tokens == 4096, "before anything is known"
    load.encoded(4096, 4096, 4096 / 10_000, 1)
    assert load.batch_tokens == 1000
    load.restart()
    load.encoded(4096, 4096, 10.0, 1)
    assert load.batch_tokens == 512, "smaller forwards would make a low rate lower"
    load.restart()
    load.encoded(4096, 4096, 0.01, 1)
    assert load.batch_tokens == 4096


def test_forwards_of_the_size_that_a_rate_allows_go_on_measuring_it():
    load, _ = meter(batch_tokens=4096)
    load.encoded(4096, 4096, 0.5, 1)
    for _ in range(100):
        tokens = load.batch_tokens
        load.encoded(tokens, tokens, tokens / 3000, 1)
    assert load.tokens_per_s == pytest.approx(3000, rel=0.01)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=50))
def test_capacity_stays_between_the_slowest_and_the_fastest_forward(seconds: list[float]):
    load, _ = meter()
    for each in seconds:
        load.encoded(1000, 1000, each, 1)
    assert 1000 / max(seconds) * 0.999 <= load.tokens_per_s <= 1000 / min(seconds) * 1.001


def test_capacity_counts_tokens_without_their_padding():
    load, _ = meter()
    load.encoded(600, 800, 1.0, 1)
    assert load.tokens_per_s == pytest.approx(600)
    assert load.padding_waste == pytest.approx(0.25)


def test_a_forward_of_no_time_and_no_tokens_is_no_defect():
    load, _ = meter()
    load.encoded(0, 0, 0.0, 1)
    assert load.padding_waste == 0
    assert load.tokens_per_s == 0


def test_waiting_tokens_come_and_go():
    load, _ = meter()
    load.enter(5)
    load.enter(7)
    load.leave(5)
    assert load.queued_tokens == 7


def test_how_long_tokens_take_follows_from_the_capacity_and_is_a_second_before_there_is_one():
    load, _ = meter()
    assert load.seconds_for(10_000) == 1.0
    load.encoded(1000, 1000, 0.5, 1)
    assert load.seconds_for(10_000) == pytest.approx(5)


def test_expected_tokens_follow_what_inputs_had():
    load, _ = meter()
    assert load.expected_tokens(2) == 16
    for _ in range(40):
        load.offered(300, 10)
    assert load.expected_tokens(4) == 120
    for _ in range(60):
        load.offered(0, 10)
    assert load.expected_tokens(4) == 1


def test_a_restart_forgets_what_the_warm_up_showed():
    load, clock = meter()
    load.encoded(1000, 1000, 10.0, 1)
    load.offered(1000, 1)
    load.waited(9.0)
    clock.now += 1
    load.restart()
    clock.now += 1
    report = load.report()
    report.pop("loop_busy")  # the processor's clock is real
    assert report == {"offered_tokens_per_s": 0, "capacity_tokens_per_s": 0, "queue_wait_s": 0}
    load.encoded(10, 10, 0.1, 1)
    assert load.tokens_per_s == pytest.approx(100)


def test_the_loops_share_of_a_processor_is_reported():
    clock = [100.0, 7.0]
    load = LoadMeter(1000, clock=lambda: clock[0], cpu_clock=lambda: clock[1])
    clock[:] = [104.0, 8.0]
    assert load.report()["loop_busy"] == pytest.approx(0.25)
    clock[:] = [108.0, 9.0]
    assert load.report()["loop_busy"] == pytest.approx(0.25)
    clock[:] = [108.5, 10.0]
    assert load.report()["loop_busy"] == pytest.approx(1.0)
