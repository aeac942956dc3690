"""What the driver hears of its actors: a unit's begin and end, a shard; from Ray, their death."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from pipelines.corpus.shards import ShardFooter

__all__ = [
    "BeginEvent",
    "DeathEvent",
    "Ending",
    "Event",
    "ShardEvent",
    "UnitEvent",
    "event_from_row",
    "event_to_row",
]


class Ending(StrEnum):
    """How a unit ended on an actor. A unit that kills its worker has no ending."""

    DONE = "done"
    FAILED = "failed"
    """The unit cannot be done; the others can."""
    INTERRUPTED = "interrupted"
    """The store or the network failed it; it may be done another time."""
    BROKEN = "broken"
    """This worker's model or device fails for every text: it ends, another takes the unit."""
    CHANGED = "changed"
    """Its source is not the version that was planned."""
    FATAL = "fatal"
    """This worker can do no unit (the model does not load here); perhaps none can."""
    MISMATCH = "mismatch"
    """The model here is of another space than the corpus, or computes other vectors: the run ends,
    for units would come to this worker faster than to any that works."""


@dataclass(frozen=True)
class BeginEvent:
    """An actor has begun a unit. One whose worker dies sends nothing after it.

    What a worker sends in the milliseconds before its death may be lost with it, this too.

    Attributes:
        unit: Key of the unit.
        worker: Names the process.
    """

    unit: str
    worker: str = ""


@dataclass(frozen=True)
class ShardEvent:
    """A shard was embedded.

    Attributes:
        unit: Key of its unit.
        name: File name.
        size_bytes: Size of the data file.
        footer: What the shard says of itself.
        duplicate: Another job had committed the same shard first: this one's work was for nothing.
        seconds: Time by stage since the unit's shard before.
        committed_at: Unix time at which it was committed.
        peak_rss_bytes: Largest memory of the worker so far.
        reasons: Why rows of it were rejected -> how many.
    """

    unit: str
    name: str
    size_bytes: int
    footer: ShardFooter
    duplicate: bool
    seconds: dict[str, float]
    committed_at: float
    peak_rss_bytes: int
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class UnitEvent:
    """A unit ended.

    Attributes:
        unit: Key of the unit.
        ending: How.
        message: Why, in one line, unless it is done.
        seconds: Time by stage that no shard of the unit has told.
    """

    unit: str
    ending: Ending
    message: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DeathEvent:
    """A worker died. Ray tells it, the worker cannot; of which unit nobody says.

    Attributes:
        message: Where, and what Ray knows of why, in one line.
    """

    message: str


Event = BeginEvent | ShardEvent | UnitEvent | DeathEvent
_KINDS = {BeginEvent: "begin", ShardEvent: "shard", UnitEvent: "unit"}
_ADAPTERS: dict[str, TypeAdapter[Event]] = {
    name: TypeAdapter(kind) for kind, name in _KINDS.items()
}


def event_to_row(event: Event) -> dict[str, list[str]]:
    """Return what an actor sends as a Ray Data batch of one row of two strings."""
    return {"kind": [_KINDS[type(event)]], "body": [json.dumps(asdict(event))]}


def event_from_row(row: Mapping[str, Any]) -> Event:
    """Rebuild an event from a row of `event_to_row`."""
    return _ADAPTERS[row["kind"]].validate_json(row["body"])
