"""Metrics of the endpoint, through Ray's Prometheus exporter (which puts `ray_` in front).

twofold_requests_total{role,dialect,status}   answered requests
twofold_tokens_total{role}                    tokens encoded
twofold_truncated_inputs_total{role}          inputs that were cut
twofold_rejected_total{role,reason}           refused: overloaded, too_large, timeout
twofold_tokenize_seconds{role}                histograms, per request
twofold_queue_seconds{role}
twofold_forward_seconds{role}
twofold_serialize_seconds{role}
twofold_queued_tokens                         gauges, per replica
twofold_tokens_per_second
twofold_padding_waste_ratio
"""

from __future__ import annotations

from typing import Any

from ray.serve import metrics

from encoder.space import Role
from serving.load import LoadMeter

__all__ = ["METRIC_NAMES", "Metrics"]

_BUCKETS_S = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
_STAGES = ("tokenize", "queue", "forward", "serialize")


def _keys(*names: str) -> Any:  # noqa: ANN401 - Ray's annotation says a tuple of one
    return names


class Metrics:
    """One replica's metrics; Ray adds deployment, replica and application to their labels."""

    def __init__(self) -> None:
        self._requests = metrics.Counter(
            "twofold_requests_total",
            description="Answered requests",
            tag_keys=_keys("role", "dialect", "status"),
        )
        self._tokens = metrics.Counter(
            "twofold_tokens_total", description="Tokens encoded", tag_keys=("role",)
        )
        self._truncated = metrics.Counter(
            "twofold_truncated_inputs_total",
            description="Inputs cut to max_seq_length",
            tag_keys=("role",),
        )
        self._rejected = metrics.Counter(
            "twofold_rejected_total",
            description="Requests refused for load, size or time",
            tag_keys=_keys("role", "reason"),
        )
        self._seconds = {
            stage: metrics.Histogram(
                f"twofold_{stage}_seconds",
                description=f"Seconds of a request in the stage {stage}",
                boundaries=_BUCKETS_S,
                tag_keys=("role",),
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
        self._requests.inc(1, {"role": role, "dialect": dialect, "status": str(status)})

    def embedded(
        self,
        role: Role,
        *,
        n_tokens: int,
        truncated: int,
        tokenize_s: float,
        queue_s: float,
        forward_s: float,
    ) -> None:
        """Count a request's vectors."""
        tags = {"role": role.value}
        self._tokens.inc(n_tokens, tags)
        if truncated:
            self._truncated.inc(truncated, tags)
        self._seconds["tokenize"].observe(tokenize_s, tags)
        self._seconds["queue"].observe(queue_s, tags)
        self._seconds["forward"].observe(forward_s, tags)

    def serialized(self, role: Role, seconds: float) -> None:
        """Count the writing of a response's body."""
        self._seconds["serialize"].observe(seconds, {"role": role.value})

    def rejected(self, role: Role | None, reason: str) -> None:
        """Count a refusal; without a role where the request was not read."""
        self._rejected.inc(1, {"role": role.value if role else "-", "reason": reason})

    def gauge(self, load: LoadMeter) -> None:
        """Publish how loaded the replica is."""
        self._queued_tokens.set(load.queued_tokens)
        self._tokens_per_s.set(load.tokens_per_s)
        self._padding_waste.set(load.padding_waste)


METRIC_NAMES = (
    "twofold_requests_total",
    "twofold_tokens_total",
    "twofold_truncated_inputs_total",
    "twofold_rejected_total",
    *(f"twofold_{stage}_seconds" for stage in _STAGES),
    "twofold_queued_tokens",
    "twofold_tokens_per_second",
    "twofold_padding_waste_ratio",
)
"""As they are defined here; Ray exports them with `ray_` in front."""
