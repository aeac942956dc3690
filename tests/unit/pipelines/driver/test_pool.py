"""How many actors run on a cluster, with which share of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.driver.pool import Pool, plan_pool
from pipelines.settings import EmbedCorpusSettings


def plan(*nodes: Mapping[str, float], units: int = 1000, **settings: object) -> Pool:
    return plan_pool(EmbedCorpusSettings(input=("x",), output="y", **settings), nodes, units=units)


def cpus(count: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": count, "memory": 1e9, **({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("nodes", "actors", "num_cpus"),
    [
        ([cpus(1)], 1, 1),
        ([cpus(2)], 1, 2),
        ([cpus(8)], 1, 8),
        ([cpus(12)], 2, 6),
        ([cpus(64)], 8, 8),
        ([cpus(8), cpus(8), cpus(8)], 3, 8),
        ([cpus(4), cpus(8)], 3, 4),
        ([{"memory": 1e9}, cpus(8)], 1, 8),
    ],
)
def test_without_gpus_the_cpus_are_shared_out(nodes, actors, num_cpus):
    pool = plan(*nodes)
    assert (pool.min_actors, pool.max_actors) == (actors, actors)
    assert (pool.num_cpus, pool.num_gpus) == (num_cpus, 0)
    assert pool.threads == num_cpus
    assert pool.fits_now


@pytest.mark.parametrize(
    ("nodes", "actors", "num_cpus"),
    [
        ([cpus(16, gpus=2)], 2, 8),
        ([cpus(6, gpus=4)], 4, 1),
        ([cpus(2, gpus=4)], 2, 1),
        ([cpus(64, gpus=1)], 1, 64),
        ([cpus(32), cpus(8, gpus=1)], 1, 8),
    ],
)
def test_with_gpus_every_actor_has_one_and_a_share_of_its_nodes_cpus(nodes, actors, num_cpus):
    pool = plan(*nodes)
    assert (pool.max_actors, pool.num_cpus, pool.num_gpus) == (actors, num_cpus, 1)


@pytest.mark.parametrize("encoder", [{"device": "cpu"}, {"backend": "openvino"}, {"dtype": "int8"}])
def test_an_encoder_that_runs_on_cpus_reserves_no_gpu(encoder):
    pool = plan(cpus(16, gpus=2), encoder=encoder)
    assert (pool.max_actors, pool.num_cpus, pool.num_gpus, pool.device) == (2, 8, 0, "cpu")


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("auto", None, "cuda"),
        ("auto", 0.5, "cuda"),
        ("auto", 0, "cpu"),
        ("cuda", 0, "cuda"),
        ("cuda:1", 1, "cuda:1"),
        ("cpu", 1, "cpu"),
    ],
)
def test_actors_that_reserve_no_gpu_take_none_unless_one_is_named(device, gpus, expected):
    pool = plan(cpus(8, gpus=1), encoder={"device": device}, num_gpus_per_actor=gpus)
    assert pool.device == expected


def test_two_actors_may_share_a_gpu():
    pool = plan(cpus(16, gpus=2), num_gpus_per_actor=0.5)
    assert (pool.max_actors, pool.num_cpus, pool.num_gpus) == (4, 4, 0.5)


def test_what_the_user_fixed_is_kept():
    pool = plan(cpus(8, gpus=1), num_gpus_per_actor=0, num_cpus_per_actor=1.5, actors="2:5")
    assert (pool.min_actors, pool.max_actors) == (2, 5)
    assert (pool.num_cpus, pool.num_gpus, pool.threads) == (1.5, 0, 1)


def test_there_are_no_more_actors_than_units():
    assert plan(cpus(64), units=3).max_actors == 3
    assert plan(cpus(64), units=2, actors="3:9").min_actors == 2
    assert plan(cpus(64), units=0).max_actors == 1


@pytest.mark.parametrize(
    "settings", [{"num_cpus_per_actor": 9}, {"num_gpus_per_actor": 1}, {"num_gpus_per_actor": 0.1}]
)
def test_an_actor_that_no_node_can_hold_is_planned_once_and_said_not_to_fit(settings):
    pool = plan(cpus(8), **settings)
    assert not pool.fits_now
    assert (pool.min_actors, pool.max_actors) == (1, 1)


@given(
    nodes=st.lists(st.tuples(st.integers(1, 200), st.integers(0, 8)), min_size=1, max_size=5),
    units=st.integers(1, 100),
)
def test_a_pool_that_is_chosen_fits_its_nodes(nodes, units):
    pool = plan(*(cpus(*node) for node in nodes), units=units)
    assert 1 <= pool.min_actors <= pool.max_actors <= units
    room = sum(
        min(count // pool.num_cpus, gpus // pool.num_gpus if pool.num_gpus else count)
        for count, gpus in nodes
    )
    assert pool.max_actors <= room
    assert pool.fits_now
    assert pool.num_cpus >= 1
    assert pool.num_gpus or pool.num_cpus <= 8
