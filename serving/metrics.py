"""Metrics of the endpoint, through Ray's Prometheus exporter (which puts `ray_` in front).

twofold_requests_total{role,dialect,status}   answered requests, but those for health
twofold_tokens_total{role}                    tokens encoded
twofold_truncated_inputs_total{role}          inputs that were cut
twofold_cached_inputs_total{role}             inputs whose vector was kept from before
twofold_rejected_total{role,reason}           refused for load, size or time
twofold_tokenize_seconds{role}                histograms, per request: _bucket{le}, _count, _sum
twofold_queue_seconds{role}
twofold_forward_seconds{role}
twofold_serialize_seconds{role}
twofold_offered_tokens_total                  tokens that clients wanted encoded, refused ones too
twofold_loop_busy_seconds_total               seconds that the event loop has computed: of one a
                                              second it is busy
twofold_queued_tokens                         gauges, per replica
twofold_tokens_per_second
twofold_padding_waste_ratio

Telling Ray of a number takes 3 us or more, which no request has to wait for: what happens is
counted here, and told once a second.
"""

from __future__ import annotations

from collections import defaultdict

from ray.serve import metrics

from encoder.space import Role
from serving.histogram import Histogram, tag_keys
from serving.load import LoadMeter

__all__ = ["BUCKETS_S", "Metrics"]

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds. An alert's threshold is one of them: between two a quantile is a guess."""
_STAGES = ("tokenize", "queue", "forward", "serialize")


class _Sums:
    """A counter of Ray's, and what it was not told yet.

    Args:
        name: The counter's.
        description: For who reads /metrics.
        *labels: Their names.
    """

    def __init__(self, name: str, description: str, *labels: str) -> None:
        self._labels = labels
        self._counter = metrics.Counter(name, description=description, tag_keys=tag_keys(labels))
        self._sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._total = 0.0

    def add(self, count: float, *values: str) -> None:
        """Count something with these values of the labels."""
        if count:
            self._sums[values] += count

    def follow(self, total: float) -> None:
        """Count by how much a total that only grows has grown since the last call."""
        self.add(max(0.0, total - self._total))
        self._total = total

    def tell(self) -> None:
        """Tell Ray."""
        for values in list(self._sums):
            # Taken out first: what Ray was told must not be told twice.
            count = self._sums.pop(values)
            self._counter.inc(count, dict(zip(self._labels, values, strict=True)))


class Metrics:
    """One replica's metrics; Ray adds deployment, replica and application to their labels.

    For one event loop.
    """

    def __init__(self) -> None:
        self._requests = _Sums(
            "twofold_requests_total", "Answered requests", "role", "dialect", "status"
        )
        self._tokens = _Sums("twofold_tokens_total", "Tokens encoded", "role")
        self._truncated = _Sums(
            "twofold_truncated_inputs_total", "Inputs cut to max_seq_length", "role"
        )
        self._cached = _Sums(
            "twofold_cached_inputs_total", "Inputs whose vector was kept from before", "role"
        )
        self._rejected = _Sums(
            "twofold_rejected_total", "Requests refused for load, size or time", "role", "reason"
        )
        self._offered_tokens = _Sums(
            "twofold_offered_tokens_total", "Tokens that clients wanted encoded, refused ones too"
        )
        self._loop_busy_s = _Sums(
            "twofold_loop_busy_seconds_total", "Seconds that the event loop has computed"
        )
        self._seconds = {
            stage: Histogram(
                f"twofold_{stage}_seconds",
                f"Seconds of a request in the stage {stage}",
                BUCKETS_S,
                "role",
            )
            for stage in _STAGES
        }
        self._queued_tokens = metrics.Gauge(
            "twofold_queued_tokens", description="Tokens that wait or are being encoded"
        )
        self._tokens_per_s = metrics.Gauge(
            "twofold_tokens_per_second", description="Tokens a second that full forwards reach"
        )
        self._padding_waste = metrics.Gauge(
            "twofold_padding_waste_ratio",
            description="Share of the last forward's tokens that was padding",
        )

    def answered(self, role: str, dialect: str, status: int) -> None:
        """Count a response."""
        self._requests.add(1, role, dialect, str(status))

    def embedded(
        self,
        role: Role,
        *,
        n_tokens: int,
        cached: int,
        truncated: int,
        tokenize_s: float,
        queue_s: float,
        forward_s: float,
    ) -> None:
        """Count a request's vectors."""
        self._tokens.add(n_tokens, role.value)
        self._truncated.add(truncated, role.value)
        self._cached.add(cached, role.value)
        self._seconds["tokenize"].observe(tokenize_s, role.value)
        self._seconds["queue"].observe(queue_s, role.value)
        self._seconds["forward"].observe(forward_s, role.value)

    def serialized(self, role: Role, seconds: float) -> None:
        """Count the writing of a response's body."""
        self._seconds["serialize"].observe(seconds, role.value)

    def rejected(self, role: str, reason: str) -> None:
        """Count a refusal."""
        self._rejected.add(1, role, reason)

    def publish(self, load: LoadMeter) -> None:
        """Tell Ray what was counted until now, and how loaded the replica is."""
        self._offered_tokens.follow(load.offered_tokens)
        self._loop_busy_s.follow(load.loop_busy_s)
        for counter in (
            self._requests,
            self._tokens,
            self._truncated,
            self._cached,
            self._rejected,
            self._offered_tokens,
            self._loop_busy_s,
        ):
            counter.tell()
        for histogram in self._seconds.values():
            histogram.tell()
        self._queued_tokens.set(load.queued_tokens)
        self._tokens_per_s.set(load.tokens_per_s)
        self._padding_waste.set(load.padding_waste)
