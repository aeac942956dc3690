"""Which shards may hold a unit's texts already. Chosen by the driver, looked into by the actors.

Each shard stands in one place, its file's or its folder's: what travels grows with the shards that
may go, not with the units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.corpus.shards import ShardName
from pipelines.source.units import WorkUnit

__all__ = ["EarlierShard", "EarlierShards", "folder_of"]

_MOST_SHARDS = 256
"""For a unit: an actor asks a store three times for each."""
_MOST_ROWS = 2_000_000
"""For a unit: 48 MB of an actor's memory."""


@dataclass(frozen=True)
class EarlierShard:
    """A shard, and where in its file it begins.

    Attributes:
        name: Of its file.
        rows: That it has.
        range_kind: What `range_start` counts.
        range_start: Start of its unit's range.
    """

    name: ShardName
    rows: int
    range_kind: str
    range_start: int


@dataclass(frozen=True)
class EarlierShards:
    """Shards of earlier versions of files, and of files that are gone.

    Attributes:
        by_place: The URI of a file that is there in another version, or the folder (with a slash
            at its end) from which files are gone -> their shards.
    """

    by_place: Mapping[str, Sequence[EarlierShard]] = field(default_factory=dict)

    def of(self, unit: WorkUnit) -> tuple[ShardName, ...]:
        """Return those that may hold a unit's texts, as many as an actor may hold.

        Of its own file the nearest: what is inserted into a file or cut out of it moves the rest,
        but seldom by much.
        """
        uri = unit.source.uri
        found = self.by_place.get(uri) or self.by_place.get(folder_of(uri), ())

        def distance(shard: EarlierShard) -> int:
            is_alike = uri in self.by_place and shard.range_kind == unit.kind
            return abs(shard.range_start - unit.start) if is_alike else 0

        chosen: list[ShardName] = []
        rows = 0
        for shard in sorted(found, key=distance)[:_MOST_SHARDS]:
            rows += shard.rows
            if rows > _MOST_ROWS:
                break
            chosen.append(shard.name)
        return tuple(chosen)


def folder_of(uri: str) -> str:
    """Return a file's folder, with a slash at its end."""
    return f"{uri.rpartition('/')[0]}/"
