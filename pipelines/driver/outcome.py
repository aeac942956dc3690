"""How a run of units ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.source.units import WorkUnit

__all__ = ["Outcome"]


@dataclass
class Outcome:
    """How a run of units ended.

    Attributes:
        units: The units that count in the end, by key: those of a source that changed meanwhile
            are replaced by those of its new version.
        failures: Label of a unit -> why it failed.
        replanned: URIs of sources that changed meanwhile.
    """

    units: dict[str, WorkUnit]
    failures: dict[str, str] = field(default_factory=dict)
    replanned: set[str] = field(default_factory=set)
