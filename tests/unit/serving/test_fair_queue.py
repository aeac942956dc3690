"""Which texts share a forward: turns of small and large requests, and turns within each."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from encoder.space import Role
from serving.fair_queue import FairQueue, QueuedRequest
from support.batchers import texts_of

BUDGET = 100
LARGE = 30
"""Texts of 4 tokens; together more than a quarter of the budget."""

_LOOP = asyncio.new_event_loop()

requests_of_costs = st.lists(
    st.lists(st.integers(1, 150), min_size=1, max_size=12), min_size=1, max_size=12
)


class CancelledOnceLookedAt(asyncio.Future[None]):
    """Is cancelled by the event loop right after the queue has seen that somebody waits."""

    def done(self) -> bool:
        was_done = super().done()
        self.cancel()
        return was_done


def a_request(*costs: int) -> QueuedRequest:
    future: asyncio.Future[None] = asyncio.Future(loop=_LOOP)
    return QueuedRequest(texts_of(*costs), Role.QUERY, list(costs), future, arrived=0.0)


def a_queue(*requests: QueuedRequest) -> FairQueue:
    queue = FairQueue()
    for request in requests:
        queue.add(request)
    return queue


def takes(queue: FairQueue, times: int) -> list[dict[QueuedRequest, int]]:
    """How many texts of which request each of the next forwards has."""
    forwards = []
    for _ in range(times):
        forward: dict[QueuedRequest, int] = {}
        for request, _ in queue.take(BUDGET):
            forward[request] = forward.get(request, 0) + 1
        forwards.append(forward)
    return forwards


def test_small_requests_and_a_large_one_take_turns_and_the_large_one_has_a_quarter() -> None:
    large, small = a_request(*[4] * LARGE), [a_request(4) for _ in range(2)]
    queue = a_queue(large, *small)
    assert takes(queue, 2) == [{small[0]: 1, small[1]: 1}, {large: 7}]
    late = a_request(4)
    queue.add(late)
    assert takes(queue, 2) == [{late: 1}, {large: 7}]


def test_of_the_small_ones_the_oldest_is_taken_whole_and_the_others_in_turns() -> None:
    first, second, third = a_request(*[4] * 6), a_request(20), a_request(*[4] * 6)
    others = [a_request(12) for _ in range(4)]
    queue = a_queue(first, second, third, *others)
    assert takes(queue, 3) == [
        {first: 6, second: 1, third: 2, **dict.fromkeys(others, 1)},
        {third: 4},
        {},
    ]


def test_what_would_come_before_a_request_is_told_by_its_size() -> None:
    queue = a_queue(a_request(1))
    queue.take(BUDGET)  # a part is 25
    for request in (a_request(7), a_request(3), a_request(*[40] * 3), a_request(50)):
        queue.add(request)
    assert queue.tokens_before(5) == 5 + 3 + 25
    assert queue.tokens_before(60) == 7 + 3 + 60 + 50


def test_a_large_request_has_whole_forwards_where_no_small_one_came_before() -> None:
    large = a_request(*[4] * 80)
    queue = a_queue(large)
    assert takes(queue, 2) == [{large: 25}, {large: 25}]
    small = a_request(4)
    queue.add(small)
    assert takes(queue, 3) == [{small: 1}, {large: 7}, {large: 23}]


def test_the_small_ones_of_long_ago_make_no_large_request_wait() -> None:
    queue = a_queue(a_request(4))
    queue.take(BUDGET)
    assert queue.take(BUDGET) == []
    large = a_request(*[4] * LARGE)
    queue.add(large)
    assert takes(queue, 1) == [{large: 25}]


def test_large_requests_share_their_forwards() -> None:
    first, second = a_request(*[4] * 100), a_request(*[4] * 20)
    queue = a_queue(first, second)
    assert takes(queue, 2) == [{first: 14, second: 11}, {first: 16, second: 9}]


def test_a_large_request_does_not_wait_for_all_of_an_older_one() -> None:
    first, second, third = a_request(*[40] * 50), a_request(*[4] * 10), a_request(*[33] * 2)
    queue = a_queue(first, second, third)
    large = []
    for _ in range(5):
        queue.add(a_request(1))
        large.append(takes(queue, 2)[1])
    assert large == [{first: 1}, {second: 7}, {third: 1}, {first: 1}, {second: 3, third: 1}]


def test_what_is_cancelled_while_a_forward_is_picked_does_not_keep_the_others_waiting() -> None:
    cancelled, large = a_request(4), a_request(*[4] * LARGE)
    queue = a_queue(cancelled, large)
    cancelled.done = CancelledOnceLookedAt(loop=_LOOP)
    assert takes(queue, 1) == [{large: 7}]


def test_a_budget_of_next_to_nothing_is_enough_for_one_text() -> None:
    small, large = a_request(1), a_request(4, 4)
    queue = a_queue(small, large)
    assert [[request for request, _ in queue.take(1)] for _ in range(3)] == [
        [small],
        [large],
        [large],
    ]


def test_a_text_that_is_larger_than_what_it_may_have_is_taken_alone() -> None:
    large, small = a_request(60, 60), a_request(4)
    queue = a_queue(large, small)
    assert takes(queue, 4) == [{small: 1}, {large: 1}, {large: 1}, {}]


def test_whoever_gave_up_has_no_part_in_a_forward() -> None:
    given_up, other = a_request(4, 4), a_request(4)
    queue = a_queue(given_up, other)
    given_up.done.cancel()
    assert takes(queue, 2) == [{other: 1}, {}]


@given(requests_of_costs)
def test_every_text_is_taken_once_in_order_within_the_budget(costs: list[list[int]]) -> None:
    requests = [a_request(*each) for each in costs]
    queue = a_queue(*requests)
    taken: dict[QueuedRequest, list[int]] = {request: [] for request in requests}
    while picked := queue.take(BUDGET):
        spent = [request.costs[index] for request, index in picked]
        assert sum(spent) <= BUDGET or len(spent) == 1
        for request, index in picked:
            taken[request].append(index)
    assert all(taken[request] == list(range(len(request.costs))) for request in requests)
    assert all(request.tokens_left == 0 for request in requests)


@given(requests_of_costs)
def test_while_small_requests_keep_coming_each_second_forward_is_the_large_ones(
    costs: list[list[int]],
) -> None:
    requests = [a_request(*each) for each in costs]
    large = [request for request in requests if request.n_tokens > BUDGET // 4]
    queue = a_queue(*requests)
    while any(request.has_more for request in large):
        queue.add(a_request(1))
        two = takes(queue, 2)
        assert any(request in forward for forward in two for request in large)
        assert any(request not in large for forward in two for request in forward)
