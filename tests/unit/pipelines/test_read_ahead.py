"""An iterator a few items ahead on a thread, and the clock of the stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pipelines import read_ahead
from pipelines.read_ahead import ReadAhead, StageClock


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_items_come_in_their_order_from_another_thread():
    threads = set()

    def numbers() -> Iterator[int]:
        threads.add(threading.current_thread())
        yield from range(100)

    with ReadAhead(numbers, items=3) as ahead:
        assert list(ahead) == list(range(100))
    assert threading.current_thread() not in threads


def test_an_error_comes_at_its_place_and_is_the_same_error():
    error = ValueError("row 2")

    def numbers() -> Iterator[int]:
        yield 0
        yield 1
        raise error

    found = []
    with pytest.raises(ValueError, match="row 2") as raised, ReadAhead(numbers, items=8) as ahead:
        found.extend(iter(ahead.__next__, None))
    assert found == [0, 1]
    assert raised.value is error


def test_an_error_in_making_the_iterator_is_raised_too():
    def broken() -> Iterator[int]:
        raise FileNotFoundError("a.jsonl")

    with pytest.raises(FileNotFoundError), ReadAhead(broken, items=1) as ahead:
        next(ahead)


def test_reading_goes_no_further_ahead_than_it_may():
    made = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with ReadAhead(numbers, items=3) as ahead:
        wait_until(lambda: len(made) == 4)
        time.sleep(0.3)
        # Three wait, and one is in the hand of the thread.
        assert made == [0, 1, 2, 3]
        assert next(ahead) == 0
        wait_until(lambda: len(made) == 5)


@pytest.mark.parametrize("leave_after", [0, 1])
def test_leaving_early_ends_the_thread_and_closes_the_iterator(leave_after):
    closed = threading.Event()
    before = threading.active_count()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    with ReadAhead(endless, items=2) as ahead:
        for _ in range(leave_after):
            next(ahead)
    assert closed.wait(20)
    assert threading.active_count() == before


def test_leaving_by_an_error_ends_the_thread_and_keeps_the_error():
    before = threading.active_count()
    with pytest.raises(KeyError, match="mine"), ReadAhead(lambda: iter(range(9)), items=1):
        raise KeyError("mine")
    assert threading.active_count() == before


class Hands:
    """Clock hands that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(read_ahead, "time", hands)
    return hands


def test_the_clock_counts_what_each_item_took_to_come(hands):
    clock = StageClock()

    def slow() -> Iterator[int]:
        hands.now += 2
        yield 1
        hands.now += 3
        yield 2

    for _ in clock.timed("read", slow()):
        hands.now += 50  # the consumer's time is not the stage's
    assert clock.take() == {"read": 5.0}
    assert clock.take() == {}


def test_the_clock_counts_the_time_before_an_error(hands):
    clock = StageClock()

    def broken() -> Iterator[int]:
        hands.now += 2
        raise ValueError("bad")
        yield 1

    with pytest.raises(ValueError, match="bad"):
        list(clock.timed("read", broken()))
    assert clock.take() == {"read": 2.0}


def test_the_clock_adds_up_over_threads():
    clock = StageClock()

    def add() -> None:
        for _ in range(1000):
            clock.add("write", 1.0)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.take() == {"write": 8000.0}
