"""How many replicas the load needs, with a plain object in place of Serve's context."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import autoscaling
from serving.autoscaling import ReplicasForLoad
from serving.load import LoadMeter

UP_S, DOWN_S = 3.0, 120.0


@dataclass
class Context:
    """What the policy reads of Serve's AutoscalingContext."""

    target_num_replicas: int = 1
    current_num_replicas: int | None = None
    capacity_adjusted_min_replicas: int = 1
    capacity_adjusted_max_replicas: int = 10
    aggregated_metrics: dict[str, dict[str, float]] | None = None
    policy_state: dict[str, Any] = field(default_factory=dict)
    current_time: float = 1_000.0

    def __post_init__(self) -> None:
        if self.current_num_replicas is None:
            self.current_num_replicas = self.target_num_replicas


def load_of(
    offered: list[float], capacity: list[float], wait: list[float] | None = None
) -> dict[str, dict[str, float]]:
    values = {
        "offered_tokens_per_s": offered,
        "capacity_tokens_per_s": capacity,
        "queue_wait_s": wait or [0.0] * len(offered),
    }
    return {
        name: {f"replica {n}": value for n, value in enumerate(each)}
        for name, each in values.items()
    }


def policy(up_s: float = 0.0, down_s: float = 0.0) -> ReplicasForLoad:
    return ReplicasForLoad(
        target_utilization=0.5,
        target_queue_wait_s=0.25,
        upscale_delay_s=up_s,
        downscale_delay_s=down_s,
    )


def decided(ctx: Context) -> int:
    return policy()(ctx)[0]


@pytest.mark.parametrize(
    ("offered", "expected"),
    [([0.0], 1), ([499.0], 1), ([501.0], 2), ([1000.0], 2), ([1001.0], 3), ([1e9], 10)],
)
def test_replicas_are_the_offered_tokens_over_the_share_of_capacity(
    offered: list[float], expected: int
):
    assert decided(Context(aggregated_metrics=load_of(offered, [1000.0]))) == expected


def test_what_is_offered_to_all_replicas_is_added_up_and_capacity_is_their_mean():
    metrics = load_of([800.0, 700.0, 500.0], [900.0, 1000.0, 1100.0])
    assert decided(Context(3, aggregated_metrics=metrics)) == 4


def test_a_replica_that_has_not_encoded_yet_does_not_count_as_capacity():
    metrics = load_of([1000.0, 0.0], [1000.0, 0.0])
    assert decided(Context(2, aggregated_metrics=metrics)) == 2


@pytest.mark.parametrize(
    "metrics", [None, {}, load_of([5000.0], [0.0]), {"offered_tokens_per_s": {"a": 5000.0}}]
)
def test_nothing_changes_before_a_capacity_is_known(metrics: dict[str, dict[str, float]] | None):
    assert decided(Context(4, aggregated_metrics=metrics)) == 4


def test_tokens_of_refused_requests_make_an_overloaded_endpoint_grow():
    load = LoadMeter(1000, clock=iter([0.0, 0.5, 1.0]).__next__)
    load.encoded(1000, 1000, 1.0, 1)
    load.enter(1000)
    for _ in range(30):
        load.offered(100, 10)  # refused: nothing of it was encoded
    metrics = {name: {"replica": value} for name, value in load.report().items()}
    assert decided(Context(1, aggregated_metrics=metrics)) == 6


def test_a_long_wait_asks_for_one_more_than_there_are():
    metrics = load_of([10.0, 10.0], [1000.0, 1000.0], wait=[0.2, 0.4])
    assert decided(Context(2, aggregated_metrics=metrics)) == 3
    short = load_of([10.0, 10.0], [1000.0, 1000.0], wait=[0.2, 0.2])
    assert decided(Context(2, aggregated_metrics=short)) == 1


def test_a_long_wait_asks_for_no_further_one_while_one_is_starting():
    metrics = load_of([10.0], [1000.0], wait=[5.0])
    starting = Context(2, current_num_replicas=1, aggregated_metrics=metrics)
    assert decided(starting) == 2


def test_a_long_wait_never_lowers_what_the_load_asks_for():
    metrics = load_of([4000.0], [1000.0], wait=[5.0])
    assert decided(Context(1, aggregated_metrics=metrics)) == 8


def test_the_bounds_hold():
    idle, busy = load_of([0.0], [1000.0]), load_of([1e6], [1000.0])
    bounds = {"capacity_adjusted_min_replicas": 2, "capacity_adjusted_max_replicas": 5}
    assert decided(Context(3, aggregated_metrics=idle, **bounds)) == 2
    assert decided(Context(3, aggregated_metrics=busy, **bounds)) == 5
    assert decided(Context(7, aggregated_metrics=None, **bounds)) == 5
    assert decided(Context(1, aggregated_metrics=None, **bounds)) == 2


def over_time(
    replicas: ReplicasForLoad, start: int, asked: list[tuple[float, float]]
) -> list[tuple[float, int]]:
    """Give the policy one load after the other, (time, offered), as Serve's controller does."""
    target, state, seen = start, {}, []
    for time, offered in asked:
        ctx = Context(
            target,
            aggregated_metrics=load_of([offered], [1000.0]),
            policy_state=state,
            current_time=time,
        )
        target, state = replicas(ctx)
        seen.append((time, target))
    return seen


def test_more_are_started_only_after_the_load_asked_for_them_long_enough():
    seen = over_time(policy(UP_S, DOWN_S), 1, [(t, 900.0) for t in (0.0, 1.0, 2.9, 3.0, 4.0)])
    assert seen == [(0.0, 1), (1.0, 1), (2.9, 1), (3.0, 2), (4.0, 2)]


def test_fewer_remain_only_after_the_load_asked_for_fewer_long_enough():
    seen = over_time(policy(UP_S, DOWN_S), 3, [(t, 10.0) for t in (0.0, 60.0, 119.0, 120.0, 121.0)])
    assert seen == [(0.0, 3), (60.0, 3), (119.0, 3), (120.0, 1), (121.0, 1)]


def test_a_burst_that_passes_starts_nothing():
    load = [(0.0, 900.0), (2.0, 900.0), (2.5, 10.0), (3.5, 900.0), (5.0, 900.0), (6.4, 900.0)]
    assert {target for _, target in over_time(policy(UP_S, DOWN_S), 1, load)} == {1}


def test_a_turn_from_fewer_to_more_starts_its_delay_anew():
    load = [(0.0, 10.0), (119.0, 10.0), (120.0, 2000.0), (121.0, 2000.0), (123.0, 2000.0)]
    assert over_time(policy(UP_S, DOWN_S), 2, load)[-2:] == [(121.0, 2), (123.0, 4)]


def test_after_a_change_the_next_one_has_to_wait_again():
    load = [(0.0, 900.0), (3.0, 900.0), (3.5, 1900.0), (6.0, 1900.0), (6.5, 1900.0)]
    assert [target for _, target in over_time(policy(UP_S, DOWN_S), 1, load)] == [1, 2, 2, 2, 4]


def test_a_dip_as_the_delay_ends_takes_no_more_than_were_never_needed_meanwhile():
    load = [(0.0, 700.0), (60.0, 1200.0), (120.0, 10.0)]  # for 2, 3 and 1
    assert over_time(policy(UP_S, DOWN_S), 4, load)[-1] == (120.0, 3)


def test_as_many_are_started_as_the_load_asks_for_as_the_delay_ends():
    load = [(0.0, 1900.0), (3.0, 900.0)]
    assert over_time(policy(UP_S, DOWN_S), 1, load)[-1] == (3.0, 2)


def test_what_serve_keeps_for_the_policy_is_not_changed_in_place():
    state = {"direction": 1, "since": 999.0, "most": 2}
    ctx = Context(aggregated_metrics=load_of([900.0], [1000.0]), policy_state=state)
    policy(UP_S)(ctx)
    assert state == {"direction": 1, "since": 999.0, "most": 2}


@settings(deadline=None)
@given(
    offered=st.lists(st.floats(0, 1e7), min_size=1, max_size=8),
    capacity=st.just(0.0) | st.floats(1, 1e5),
    wait=st.floats(0, 100),
    target=st.integers(1, 20),
    least=st.integers(1, 5),
    more=st.integers(0, 10),
)
def test_the_answer_is_always_a_whole_number_within_the_bounds(
    offered: list[float], capacity: float, wait: float, target: int, least: int, more: int
):
    count = len(offered)
    ctx = Context(
        target,
        capacity_adjusted_min_replicas=least,
        capacity_adjusted_max_replicas=least + more,
        aggregated_metrics=load_of(offered, [capacity] * count, [wait] * count),
    )
    replicas, state = policy()(ctx)
    assert type(replicas) is int
    assert least <= replicas <= least + more
    assert state == {}


def test_the_policy_imports_nothing_but_the_standard_library():
    """Serve's controller imports it, where our dependencies need not be."""
    tree = ast.parse(Path(autoscaling.__file__).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported
    assert imported <= sys.stdlib_module_names


def test_busy_event_loops_ask_for_replicas_where_the_encoder_is_hardly_used():
    loads = {**load_of([10.0], [1000.0]), "loop_busy": {"a": 0.95}}
    ctx = Context(aggregated_metrics=loads, policy_state={"direction": 1, "since": 0.0, "most": 2})
    assert policy(UP_S)(ctx)[0] == 2
