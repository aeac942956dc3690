"""Which shards may hold texts of what is to be embedded: those of earlier versions of its files.

Where a tool writes a folder anew under other names, those of the files that are gone from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from pipelines.corpus.earlier_shards import EarlierShard, EarlierShards, folder_of
from pipelines.corpus.index import IndexedShard
from pipelines.driver.retire import sources_under
from pipelines.source.units import WorkUnit

__all__ = ["earlier_shards"]


def earlier_shards(
    units: Collection[WorkUnit],
    todo: Iterable[WorkUnit],
    listed: Iterable[IndexedShard],
    *,
    roots: Collection[str],
) -> EarlierShards:
    """Sort shards by what may take vectors from them.

    Args:
        units: All units of the plan.
        todo: Those that are to be done; what none of them can use is left out.
        listed: Shards of the published index.
        roots: Inputs of the run, as sources name them.
    """
    versions = {unit.source.uri: unit.source.version for unit in units}
    shards = [s for s in listed if versions.get(s.footer.source) != s.footer.version]
    gone = sources_under(shards, roots) - versions.keys()
    asked = {unit.source.uri for unit in todo}
    folders = {folder_of(uri) for uri in asked}
    by_place: defaultdict[str, list[EarlierShard]] = defaultdict(list)
    for shard in shards:
        footer = shard.footer
        uri, folder = footer.source, folder_of(footer.source)
        place = uri if uri in asked else folder if uri in gone and folder in folders else None
        if place is not None:
            by_place[place].append(
                EarlierShard(uri, footer.range_start, footer.row_start, shard.name, footer.rows)
            )
    return EarlierShards({place: sorted(found) for place, found in by_place.items()})
