"""What a result depends on beside the code: the machine and the versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from encoder.placement import usable_cpus
from pipelines.driver.report import installed_versions

__all__ = ["describe_machine", "use_cores"]

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16")


def use_cores(count: int) -> None:
    """Keep this process, and all that it starts from now on, on the first `count` of its cores.

    What is measured has threads of its own, which not every library lets itself be told. Where the
    system has no such call (macOS), nothing happens.

    Raises:
        ValueError: This process may not use so many.
    """
    if not 1 <= count <= usable_cpus():
        raise ValueError(f"expected 1 to {usable_cpus()} threads, found {count}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def describe_machine() -> dict[str, object]:
    """Return CPU model, cores, the instruction sets that matter, memory and versions."""
    cpu = _cpu_info()
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cores": usable_cpus(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "memory_gib": round(pages / 2**30, 1),
        "system": platform.system(),
        "versions": installed_versions(),
    }


def _cpu_info() -> dict[str, str]:
    """Return the first processor's entry of /proc/cpuinfo; nothing on other systems."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    first = file.read_text().partition("\n\n")[0]
    entries = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in entries}
