"""Which shards may hold texts of a unit already: those of an earlier version of its file.

Where a tool writes a folder anew under other names, those of the files that are gone from it.
Pure decisions; an actor reads the shards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from pipelines.corpus.index import IndexedShard
from pipelines.driver.retire import sources_under
from pipelines.source.units import WorkUnit

__all__ = ["with_earlier_shards"]

_MOST_SHARDS = 256
"""For a unit: an actor asks a store three times for each."""
_MOST_ROWS = 2_000_000
"""For a unit: 48 MB of an actor's memory."""


def with_earlier_shards(
    units: Mapping[str, WorkUnit], todo: Collection[str], listed: Iterable[IndexedShard]
) -> dict[str, WorkUnit]:
    """Return a plan's units, those that are to be done with the shards that may hold their texts.

    Args:
        units: All units of the plan, by key.
        todo: Keys of those that are to be done.
        listed: Shards of the published index.
    """
    versions = {unit.source.uri: unit.source.version for unit in units.values()}
    shards = [s for s in listed if versions.get(s.footer.source) != s.footer.version]
    gone = sources_under(shards, {unit.source.root for unit in units.values()}) - versions.keys()
    by_source: dict[str, list[IndexedShard]] = defaultdict(list)
    by_folder: dict[str, list[IndexedShard]] = defaultdict(list)
    for shard in sorted(shards, key=lambda shard: shard.name):
        uri = shard.footer.source
        if uri in versions:
            by_source[uri].append(shard)
        elif uri in gone:
            by_folder[_folder(uri)].append(shard)

    def with_earlier(unit: WorkUnit) -> WorkUnit:
        uri = unit.source.uri
        found = by_source.get(uri) or by_folder.get(_folder(uri), [])
        return replace(unit, earlier=_nearest(unit, found)) if found else unit

    return {key: with_earlier(unit) if key in todo else unit for key, unit in units.items()}


def _nearest(unit: WorkUnit, shards: Iterable[IndexedShard]) -> tuple[str, ...]:
    """Return the names of as many shards as an actor may hold, nearest in the file first.

    What is inserted into a file or cut out of it moves the rest, but seldom by much.
    """

    def distance(shard: IndexedShard) -> int:
        footer = shard.footer
        is_alike = footer.source == unit.source.uri and footer.range_kind == unit.kind
        return abs(footer.range_start - unit.start) if is_alike else 0

    chosen: list[str] = []
    rows = 0
    for shard in sorted(shards, key=distance):
        rows += shard.footer.rows
        if len(chosen) == _MOST_SHARDS or rows > _MOST_ROWS:
            break
        chosen.append(str(shard.name))
    return tuple(chosen)


def _folder(uri: str) -> str:
    return uri.rpartition("/")[0]
