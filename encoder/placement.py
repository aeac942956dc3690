"""What an encoder takes of a cluster or a machine, for jobs and endpoints alike."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from encoder.settings import BackendName, DtypeName, EncoderSettings

__all__ = ["device_with", "fit", "gpus_wanted", "usable_cpus"]


def gpus_wanted(settings: EncoderSettings, nodes: Sequence[Mapping[str, float]]) -> float:
    """Return the GPUs to reserve for one encoder: 1 where there are any and it may use one.

    Args:
        settings: Of the encoder.
        nodes: Resources of every node that is alive ({"CPU": 8.0, "GPU": 1.0}).
    """
    on_cpu = (
        settings.device == "cpu"
        or settings.backend is BackendName.OPENVINO
        or settings.dtype is DtypeName.INT8
    )
    return 1.0 if not on_cpu and any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0


def device_with(settings: EncoderSettings, gpus: float) -> str:
    """Return the device of an encoder for which so many GPUs are reserved.

    Ray hides no GPU from a worker that reserves none: left to choose, all would take the first. One
    that reserves a GPU which PyTorch cannot use would take the CPU, many times slower, and not say.
    """
    if settings.device != "auto":
        return settings.device
    return "cuda" if gpus else "cpu"


def fit(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return how many workers of so many CPUs and GPUs a node with these resources holds."""
    by_cpu = math.floor(node.get("CPU", 0) / cpus)
    return min(by_cpu, math.floor(node.get("GPU", 0) / gpus)) if gpus else by_cpu


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
