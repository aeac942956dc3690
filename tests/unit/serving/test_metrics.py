"""What the endpoint tells Ray, and when: Ray's metrics stand in as lists."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from encoder.space import Role
from serving import metrics as module
from serving.load import LoadMeter
from serving.metrics import METRIC_NAMES, Metrics

QUERY, DOCUMENT = Role.QUERY, Role.DOCUMENT
Told = dict[str, list[tuple[float, dict[str, str]]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What Ray was told, by the metric's name."""
    told: Told = {}

    class Metric:
        def __init__(self, name: str, tag_keys: tuple[str, ...] = (), **_: Any) -> None:
            self.keys = set(tag_keys)
            self.told = told.setdefault(name, [])

        def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
            assert value > 0, "Ray refuses it"
            assert set(tags or {}) == self.keys
            self.told.append((value, tags or {}))

        set = observe = inc

    class Gauge(Metric):
        def set(self, value: float) -> None:
            self.told[:] = [(value, {})]

    fake = SimpleNamespace(Counter=Metric, Histogram=Metric, Gauge=Gauge)
    monkeypatch.setattr(module, "metrics", fake)
    return told


def embed(metrics: Metrics, role: Role, n_tokens: int, truncated: int = 0) -> None:
    metrics.embedded(
        role, n_tokens=n_tokens, truncated=truncated, tokenize_s=0.1, queue_s=0.2, forward_s=0.3
    )
    metrics.serialized(role, 0.4)
    metrics.answered(role.value, "openai", 200)


def publish(metrics: Metrics, load: LoadMeter | None = None) -> None:
    asyncio.run(metrics.publish(load or LoadMeter(1)))


def test_a_request_tells_ray_nothing_until_it_is_published(told: Told):
    metrics = Metrics()
    embed(metrics, QUERY, 7, truncated=1)
    metrics.rejected(None, "overloaded")

    assert set(told) == set(METRIC_NAMES)
    assert not any(told.values())


def test_counts_are_told_in_one_sum_for_each_set_of_labels(told: Told):
    metrics = Metrics()
    for n_tokens in (7, 5):
        embed(metrics, QUERY, n_tokens, truncated=1)
    embed(metrics, DOCUMENT, 100)
    metrics.answered("-", "-", 429)
    for role in (None, None, QUERY):
        metrics.rejected(role, "overloaded")

    publish(metrics)

    assert told["twofold_tokens_total"] == [(12, {"role": "query"}), (100, {"role": "document"})]
    assert told["twofold_truncated_inputs_total"] == [(2, {"role": "query"})]
    assert told["twofold_requests_total"] == [
        (2, {"role": "query", "dialect": "openai", "status": "200"}),
        (1, {"role": "document", "dialect": "openai", "status": "200"}),
        (1, {"role": "-", "dialect": "-", "status": "429"}),
    ]
    assert told["twofold_rejected_total"] == [
        (2, {"role": "-", "reason": "overloaded"}),
        (1, {"role": "query", "reason": "overloaded"}),
    ]


def test_every_time_of_every_request_is_told(told: Told):
    metrics = Metrics()
    for role in (QUERY, QUERY, DOCUMENT):
        embed(metrics, role, 1)

    publish(metrics)

    for stage, seconds in (("tokenize", 0.1), ("queue", 0.2), ("forward", 0.3), ("serialize", 0.4)):
        assert told[f"twofold_{stage}_seconds"] == [
            (seconds, {"role": role}) for role in ("query", "query", "document")
        ]


def test_what_was_told_is_not_told_again(told: Told):
    metrics = Metrics()
    embed(metrics, QUERY, 7)
    publish(metrics)
    before = {name: list(values) for name, values in told.items()}

    publish(metrics)
    assert told == before

    embed(metrics, QUERY, 5)
    publish(metrics)
    assert [value for value, _ in told["twofold_tokens_total"]] == [7, 5]


def test_the_load_is_told_as_it_is_now(told: Told):
    load = LoadMeter(1)
    load.enter(9)
    load.encoded(30, 40, 2.0)

    publish(Metrics(), load)

    assert told["twofold_queued_tokens"] == [(9, {})]
    assert told["twofold_tokens_per_second"] == [(15, {})]
    assert told["twofold_padding_waste_ratio"] == [(0.25, {})]


def test_requests_are_answered_while_many_times_are_told_and_a_cancelled_rest_is_told_later(
    told: Told,
):
    async def scenario() -> None:
        metrics = Metrics()
        for _ in range(1000):
            metrics.serialized(QUERY, 0.1)
        publishing = asyncio.create_task(metrics.publish(LoadMeter(1)))
        for _ in range(3):
            await asyncio.sleep(0)
        times = told["twofold_serialize_seconds"]
        assert 0 < len(times) < 200
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await metrics.publish(LoadMeter(1))
        assert len(times) == 1000

    asyncio.run(scenario())
