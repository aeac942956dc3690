"""How many replicas the load needs: offered tokens over capacity, busy loops, waits in queues.

Serve's controller runs this code, and has neither our packages' dependencies nor our model: only
the standard library is imported. Offered tokens count rejected requests too, so an overloaded
endpoint grows instead of looking busy but content.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["ReplicasForLoad"]


class ReplicasForLoad:
    """A Serve autoscaling policy.

    Args:
        target_utilization: Share of a replica's capacity that is offered to it, 0 to 1.
        target_queue_wait_s: Mean wait beyond which one more replica is asked for.
        upscale_delay_s: How long more must be needed before more are asked for.
        downscale_delay_s: How long fewer must be needed before fewer are asked for.
    """

    def __init__(
        self,
        target_utilization: float,
        target_queue_wait_s: float,
        upscale_delay_s: float,
        downscale_delay_s: float,
    ) -> None:
        self._target_utilization = target_utilization
        self._target_queue_wait_s = target_queue_wait_s
        self._upscale_delay_s = upscale_delay_s
        self._downscale_delay_s = downscale_delay_s

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:  # noqa: ANN401 - Serve's context
        """Return the number of replicas and the state to be given back next time."""
        current = ctx.target_num_replicas
        wanted = min(
            max(self._needed(ctx), ctx.capacity_adjusted_min_replicas),
            ctx.capacity_adjusted_max_replicas,
        )
        state = dict(ctx.policy_state or {})
        direction = (wanted > current) - (wanted < current)
        if direction == 0:
            return int(current), {}
        if state.get("direction") != direction:
            state = {"direction": direction, "since": ctx.current_time, "most": wanted}
        # The most that was needed meanwhile: a dip as the delay ends must not take all at once.
        state["most"] = max(state["most"], wanted)
        delay = self._upscale_delay_s if direction > 0 else self._downscale_delay_s
        if ctx.current_time - state["since"] < delay:
            return int(current), state
        return int(state["most"] if direction < 0 else wanted), {}

    def _needed(self, ctx: Any) -> int:  # noqa: ANN401 - Serve's context
        metrics = ctx.aggregated_metrics or {}
        offered = sum(metrics.get("offered_tokens_per_s", {}).values())
        capacities = [c for c in metrics.get("capacity_tokens_per_s", {}).values() if c > 0]
        waits = list(metrics.get("queue_wait_s", {}).values())
        if not capacities:
            return int(ctx.target_num_replicas)
        capacity = sum(capacities) / len(capacities)
        busy_loops = sum(metrics.get("loop_busy", {}).values())
        needed: int = max(
            math.ceil(offered / (capacity * self._target_utilization)),
            math.ceil(busy_loops / self._target_utilization),
        )
        if waits and sum(waits) / len(waits) > self._target_queue_wait_s:
            needed = max(needed, ctx.current_num_replicas + 1)
        return needed
