"""What the endpoint tells Ray, and when: Ray's metrics stand in as lists."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoder.space import Role
from serving import histogram as histogram_module
from serving import metrics as module
from serving.histogram import Histogram
from serving.load import LoadMeter
from serving.metrics import BUCKETS_S, Metrics
from support.metric_names import METRIC_NAMES

QUERY, DOCUMENT = Role.QUERY, Role.DOCUMENT
Told = dict[str, list[tuple[float, dict[str, str]]]]


@pytest.fixture
def labels() -> dict[str, set[str]]:
    """The labels that Ray was told of, by the metric's name."""
    return {}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, labels: dict[str, set[str]]) -> Told:
    """What Ray was told, by the metric's name."""
    told: Told = {}

    class Metric:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...] = ()) -> None:
            assert description
            self.keys = labels[name] = set(tag_keys)
            self.told = told.setdefault(name, [])

    class Counter(Metric):
        def inc(self, value: float, tags: dict[str, str]) -> None:
            assert value > 0, "Ray refuses it"
            assert set(tags) == self.keys
            self.told.append((value, tags))

    class Gauge(Metric):
        def set(self, value: float, tags: dict[str, str] | None = None) -> None:
            given = tags or {}
            assert set(given) == self.keys
            self.told[:] = [each for each in self.told if each[1] != given] + [(value, given)]

    fake = SimpleNamespace(Counter=Counter, Gauge=Gauge)
    monkeypatch.setattr(module, "metrics", fake)
    monkeypatch.setattr(histogram_module, "metrics", fake)
    return told


def embed(metrics: Metrics, role: Role, n_tokens: int, truncated: int = 0, cached: int = 0) -> None:
    metrics.embedded(
        role,
        n_tokens=n_tokens,
        cached=cached,
        truncated=truncated,
        tokenize_s=0.1,
        queue_s=0.2,
        forward_s=0.3,
    )
    metrics.serialized(role, 0.4)
    metrics.answered(role.value, "openai", 200)


def publish(metrics: Metrics, load: LoadMeter | None = None) -> None:
    metrics.publish(load or LoadMeter(1))


def names(metric: str) -> set[str]:
    """Names under which Ray is told of one of ours."""
    if metric.endswith("_seconds"):
        return {f"{metric}_{ending}" for ending in ("bucket", "count", "sum")}
    return {metric}


def test_a_request_tells_ray_nothing_until_it_is_published(told: Told):
    metrics = Metrics()
    embed(metrics, QUERY, 7, truncated=1)
    metrics.rejected("-", "overloaded")

    assert set(told) == set().union(*map(names, METRIC_NAMES))
    assert not any(told.values())


def test_the_guide_lists_every_metric_with_its_labels(told: Told, labels: dict[str, set[str]]):
    guide = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(twofold_\w+)` \| (\w+) \| ([\w, ]*?) ?\|", guide, re.MULTILINE)

    Metrics()

    documented = {name: set(filter(None, of.split(", "))) for name, _, of in rows}
    assert documented.keys() == set(METRIC_NAMES)
    for name, kind, _ in rows:
        assert (kind == "counter") == name.endswith("_total")
        assert labels[f"{name}_count" if kind == "histogram" else name] == documented[name]


def test_counts_are_told_in_one_sum_for_each_set_of_labels(told: Told):
    metrics = Metrics()
    for n_tokens in (7, 5):
        embed(metrics, QUERY, n_tokens, truncated=1, cached=3)
    embed(metrics, DOCUMENT, 100)
    metrics.answered("-", "-", 429)
    for role in ("-", "-", "query"):
        metrics.rejected(role, "overloaded")

    publish(metrics)

    assert told["twofold_tokens_total"] == [(12, {"role": "query"}), (100, {"role": "document"})]
    assert told["twofold_truncated_inputs_total"] == [(2, {"role": "query"})]
    assert told["twofold_cached_inputs_total"] == [(6, {"role": "query"})]
    assert told["twofold_requests_total"] == [
        (2, {"role": "query", "dialect": "openai", "status": "200"}),
        (1, {"role": "document", "dialect": "openai", "status": "200"}),
        (1, {"role": "-", "dialect": "-", "status": "429"}),
    ]
    assert told["twofold_rejected_total"] == [
        (2, {"role": "-", "reason": "overloaded"}),
        (1, {"role": "query", "reason": "overloaded"}),
    ]


def test_what_is_offered_and_what_the_loop_computes_are_told_as_they_grow(told: Told):
    metrics, cpu_s = Metrics(), 5.0
    load = LoadMeter(1, cpu_clock=lambda: cpu_s)
    for n_tokens, busy_s in ((7, 0.25), (5, 0.5), (0, 0.0)):
        load.offered(n_tokens, 1)
        cpu_s += busy_s
        publish(metrics, load)

    assert told["twofold_offered_tokens_total"] == [(7, {}), (5, {})]
    assert told["twofold_loop_busy_seconds_total"] == [(0.25, {}), (0.5, {})]


def test_every_time_of_every_request_is_in_a_histogram(told: Told):
    metrics = Metrics()
    for role in (QUERY, QUERY, DOCUMENT):
        embed(metrics, role, 1)

    publish(metrics)

    for stage, seconds in (("tokenize", 0.1), ("queue", 0.2), ("forward", 0.3), ("serialize", 0.4)):
        counts = [(2, {"role": "query"}), (1, {"role": "document"})]
        sums = [(count * seconds, labels) for count, labels in counts]
        assert told[f"twofold_{stage}_seconds_count"] == counts
        assert told[f"twofold_{stage}_seconds_sum"] == sums


def test_a_histogram_counts_up_to_each_bound_and_keeps_all_its_buckets(told: Told):
    histogram = Histogram("wait", "Seconds", (0.5, 1, 2.5), "role")
    for value in (0.1, 0.5, 0.6, 2.5, 99.0):  # one that is equal to a bound is within it
        histogram.observe(value, "query")
    histogram.tell()
    assert told["wait_bucket"] == [
        (total, {"role": "query", "le": le})
        for le, total in (("0.5", 2), ("1.0", 3), ("2.5", 4), ("+Inf", 5))
    ]

    histogram.observe(0.1, "query")
    histogram.tell()
    assert [total for total, _ in told["wait_bucket"]] == [3, 4, 5, 6]
    assert told["wait_sum"] == [(pytest.approx(102.8), {"role": "query"})]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(0, 60)))
def test_a_bucket_holds_what_is_not_above_its_bound(told: Told, values: list[float]):
    histogram = Histogram("any", "Seconds", BUCKETS_S, "role")
    told["any_bucket"].clear()
    for value in values:
        histogram.observe(value, "query")
    histogram.tell()
    found = {labels["le"]: total for total, labels in told["any_bucket"]}
    if values:
        assert found.pop("+Inf") == len(values)
    assert found == {
        str(float(bound)): sum(value <= bound for value in values)
        for bound in (BUCKETS_S if values else ())
    }


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
    load.encoded(30, 40, 2.0, 1)

    publish(Metrics(), load)

    assert told["twofold_queued_tokens"] == [(9, {})]
    assert told["twofold_tokens_per_second"] == [(15, {})]
    assert told["twofold_padding_waste_ratio"] == [(0.25, {})]
