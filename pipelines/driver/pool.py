"""The actor pool: how many actors, with which share of the cluster. Pure arithmetic over nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from encoder.placement import device_with, fit, gpus_wanted
from pipelines.settings import EmbedCorpusSettings

__all__ = ["MOST_CPUS_PER_CPU_ACTOR", "Pool", "plan_pool"]

MOST_CPUS_PER_CPU_ACTOR = 8
"""Where the forward runs on CPUs, a second actor gains more than the ninth thread of one. An actor
with a GPU takes all of its share: tokenizing is what limits it, and grows with the threads."""


@dataclass(frozen=True)
class Pool:
    """An actor pool.

    Attributes:
        min_actors: Actors that are started at once.
        max_actors: Actors at the most.
        num_cpus: Logical CPUs that each reserves, and threads that it uses.
        num_gpus: GPUs that each reserves; may be a fraction.
        units_in_flight: Units that an actor works on at once.
        fits_now: Whether some node that is alive can hold one actor.
        device: Device of each actor's encoder, as in `EncoderSettings.device`: "cuda" where it
            reserves a GPU, of which Ray shows it no other.
    """

    min_actors: int
    max_actors: int
    num_cpus: float
    num_gpus: float
    units_in_flight: int
    fits_now: bool
    device: str = "auto"

    @property
    def threads(self) -> int:
        """Threads of an actor's tokenizer and forward."""
        return max(1, int(self.num_cpus))


def plan_pool(
    settings: EmbedCorpusSettings, nodes: Sequence[Mapping[str, float]], *, units: int
) -> Pool:
    """Choose the pool for a run.

    Args:
        settings: What the user fixed; the rest is chosen here.
        nodes: Resources of every node that is alive ({"CPU": 8.0, "GPU": 1.0}).
        units: Units to embed: more actors than that would idle.

    Returns:
        A pool of one GPU an actor where there are GPUs and the encoder may use them, else of a
        node's CPUs, 8 at the most.
    """
    gpus = settings.num_gpus_per_actor
    if gpus is None:
        gpus = gpus_wanted(settings.encoder, nodes)
    hosts = [node for node in nodes if node.get("GPU", 0) >= gpus] if gpus else list(nodes)
    cpus = settings.num_cpus_per_actor
    if cpus is None:
        cpus = min((_cpu_share(node, gpus) for node in hosts if node.get("CPU")), default=1.0)
    fitting = sum(fit(node, cpus, gpus) for node in hosts)
    if settings.actors is None:
        low = high = max(1, fitting)
    else:
        low, high = settings.actors.min, settings.actors.max
    most = max(1, units)
    return Pool(
        min_actors=min(low, most),
        max_actors=min(high, most),
        num_cpus=cpus,
        num_gpus=gpus,
        units_in_flight=settings.units_in_flight,
        fits_now=fitting > 0,
        device=device_with(settings.encoder, gpus),
    )


def _cpu_share(node: Mapping[str, float], gpus: float) -> float:
    # As many actors as it takes to leave no CPU idle: 12 CPUs are two actors of 6, not one of 8.
    if gpus:
        actors = math.floor(node["GPU"] / gpus)
    else:
        actors = math.ceil(node["CPU"] / MOST_CPUS_PER_CPU_ACTOR)
    return float(max(1, math.floor(node["CPU"] / max(1, actors))))
