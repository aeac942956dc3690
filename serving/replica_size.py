"""What a replica takes of the cluster where settings leave it open: arithmetic over nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from encoder.placement import fit, gpus_wanted
from encoder.settings import EncoderSettings
from serving.settings import ScalingSettings

__all__ = ["ReplicaSize", "replica_size"]

_DEFAULT_CPUS = 4.0


@dataclass(frozen=True)
class ReplicaSize:
    """What Ray reserves for a replica.

    Attributes:
        num_cpus: CPUs, and threads that it uses.
        num_gpus: GPUs; may be a fraction.
    """

    num_cpus: float
    num_gpus: float

    @property
    def threads(self) -> int:
        """Threads of a replica's tokenizer and forward."""
        return max(1, int(self.num_cpus))

    def fit(self, node: Mapping[str, float]) -> int:
        """Return how many a node with these resources ({"CPU": 8.0, "GPU": 1.0}) holds."""
        return fit(node, self.num_cpus, self.num_gpus)


def replica_size(
    scaling: ScalingSettings, encoder: EncoderSettings, nodes: Sequence[Mapping[str, float]]
) -> ReplicaSize:
    """Return what a replica takes: as set, else 4 CPUs and a GPU where there are any.

    Args:
        scaling: What the user fixed.
        encoder: Says whether its forward may run on a GPU.
        nodes: Resources of every node that is alive.
    """
    largest = max((node.get("CPU", 0.0) for node in nodes), default=0.0) or 1.0
    gpus = scaling.num_gpus_per_replica
    return ReplicaSize(
        num_cpus=scaling.num_cpus_per_replica or min(_DEFAULT_CPUS, largest),
        num_gpus=gpus_wanted(encoder, nodes) if gpus is None else gpus,
    )
