"""When the requests of an open loop arrive: fixed beforehand, whatever the server does."""

from __future__ import annotations

import random

__all__ = ["arrivals"]


def arrivals(rate: float, seconds: float, *, limit: int, seed: int = 0) -> list[float]:
    """Return the times of a Poisson process, the same ones for a seed, in seconds from 0.

    Independent clients arrive like this. At even distances nothing ever queues below the capacity,
    which flatters every server's tail.

    Args:
        rate: Mean arrivals a second.
        seconds: Arrivals from here on are left out.
        limit: Arrivals at the most.
        seed: Of chance; turns that are to be samples of it need one each.

    Raises:
        ValueError: The rate is not above 0.
    """
    if rate <= 0:
        raise ValueError(f"expected a rate above 0 requests/s, found {rate}")
    chance = random.Random(seed)
    times: list[float] = []
    now = chance.expovariate(rate)
    while now < seconds and len(times) < limit:
        times.append(now)
        now += chance.expovariate(rate)
    return times
