"""Which shards may hold a unit's texts already. Chosen by the driver, looked into by the actors.

Each shard stands in one place, its file's or its folder's: what travels grows with the shards that
may go, not with the units.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.corpus.shards import ShardName
from pipelines.source.units import WorkUnit

__all__ = ["EarlierShard", "EarlierShards", "folder_of"]

_MOST_SHARDS = 256
_MOST_ROWS = 2_000_000
"""48 MB of an actor's memory."""
_LEAST_SHARDS = 4
_BYTES_EACH = 2**18
"""Of a unit, for each shard more: an actor asks a store three times for each, which must be little
beside what embedding the unit costs."""
_STEPS = 4
"""In which a window moves through a file: each costs reading a part of it."""


@dataclass(frozen=True, order=True)
class EarlierShard:
    """A shard, and where its rows were; in that order.

    Attributes:
        source: URI of the file.
        range_start: Start of its unit's range.
        row_start: Its first row, counted from there.
        name: Of the shard.
        rows: That it has.
    """

    source: str
    range_start: int
    row_start: int
    name: ShardName
    rows: int


@dataclass(frozen=True)
class EarlierShards:
    """Shards of earlier versions of files, and of files that are gone.

    Attributes:
        by_place: The URI of a file that is there in another version, or the folder (with a slash
            at its end) from which files are gone -> their shards, in order.
    """

    by_place: Mapping[str, Sequence[EarlierShard]] = field(default_factory=dict)

    def of(self, unit: WorkUnit, row: int = 0) -> tuple[ShardName, ...]:
        """Return those that may hold texts of a unit, as many as are worth it: the nearest.

        What is put into a file or cut out of it moves the rest, but seldom by much. And what takes
        a file's place often has a name like it: part-00017-1f2e after part-00017-3d4c.

        Args:
            unit: The unit.
            row: Which of its rows it has come to.
        """
        uri = unit.source.uri
        shards = self.by_place.get(uri) or self.by_place.get(folder_of(uri), ())
        if not shards:
            return ()
        count = min(_MOST_SHARDS, _LEAST_SHARDS + unit.size_bytes // _BYTES_EACH)
        count = max(1, min(count, _MOST_ROWS // max(1, *(s.rows for s in shards[:_MOST_SHARDS]))))
        step = max(1, count // _STEPS)
        place = bisect_left(shards, (uri, unit.start, row), key=_place) // step * step
        first = max(0, min(place - count // 2, len(shards) - count))
        return tuple(shard.name for shard in shards[first : first + count])


def folder_of(uri: str) -> str:
    """Return a file's folder, with a slash at its end."""
    return f"{uri.rpartition('/')[0]}/"


def _place(shard: EarlierShard) -> tuple[str, int, int]:
    return shard.source, shard.range_start, shard.row_start
