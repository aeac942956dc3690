"""Which shards are live after a run, and which are retired: changed sources, pruned sources.

A source's old shards live until the shards of its new version are complete, so a reader of the
index always sees every source in one version, whole. Pure decisions; the caller deletes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pipelines.corpus.index import IndexedShard
from pipelines.errors import PruneLimitError
from pipelines.source.units import WorkUnit

__all__ = ["Retirement", "plan_retirement", "sources_under"]


@dataclass(frozen=True)
class Retirement:
    """What becomes of the shards that exist.

    Attributes:
        live: Shards that the index lists.
        retired: Shards that are deleted once the index is published.
        gone: URIs under this run's inputs whose files are gone but whose shards are live.
        refused: Why nothing was pruned although it was asked for.
    """

    live: tuple[IndexedShard, ...]
    retired: tuple[IndexedShard, ...]
    gone: tuple[str, ...]
    refused: PruneLimitError | None = None


def plan_retirement(
    shards: Iterable[IndexedShard],
    *,
    units: Mapping[str, WorkUnit],
    incomplete: Collection[str],
    abandoned: Collection[str] = (),
    roots: Collection[str],
    listed: Mapping[str, str] | None,
    now: Mapping[str, str],
    prune_max: float | None,
) -> Retirement:
    """Decide for every shard. What is neither live nor retired waits for the rest of its source.

    Args:
        shards: All shards that exist.
        units: Units of this run's plan, by key, done or not.
        incomplete: URIs of sources of which not all units are complete.
        abandoned: Keys of units of sources that went before all of them were complete: what is
            committed of them is retired, for it will never be whole.
        roots: Inputs of this run, as sources name them.
        listed: Version of each source that the published index lists; None where none is published.
        now: Versions that sources have by now. It decides these four cases:

            - A planned source has shards of a version newer than the plan's: another job's, so
              they stay.
            - A planned source has shards of any other version: they are old.
            - A source under `roots` that the plan lacks is there: it came after the plan, and
              stays.
            - One that is not there is gone; where it is not listed either, a run pruned it that
              did not come to delete its shards.
        prune_max: Largest share of the sources under `roots` that may be retired because they are
            gone; None: none is.
    """
    by_source, retired = _by_source(shards, abandoned)
    live: list[IndexedShard] = []
    planned = {unit.source.uri: unit.source.version for unit in units.values()}
    under = sources_under(chain.from_iterable(by_source.values()), roots)
    gone = under - planned.keys() - now.keys()
    pruned = gone - (gone if listed is None else listed.keys())
    listed = listed or {}
    for uri, found in [item for item in by_source.items() if item[0] not in pruned]:
        current = [shard for shard in found if shard.name.unit in units]
        others = [shard for shard in found if shard.name.unit not in units]
        if uri not in planned:
            live += _one_version(found, listed.get(uri))
            continue
        newest = None if now.get(uri) == planned[uri] else now.get(uri)
        newer = [shard for shard in others if shard.footer.version == newest]
        old = [shard for shard in others if shard.footer.version != newest]
        if newer and listed.get(uri) == now[uri]:
            live += newer
        elif uri in incomplete and old:
            live += _one_version(old, listed.get(uri))
        else:
            live += current
            retired += old
    refused = None
    if prune_max is not None:
        if len(gone) > prune_max * len(under):
            refused = PruneLimitError(
                f"{len(gone)} of {len(under)} sources under the inputs are gone, --prune may "
                f"retire {prune_max:.0%} of them; nothing was pruned. If they are meant to be "
                "gone, raise --prune-max"
            )
        else:
            retired += [shard for uri in sorted(gone) for shard in by_source[uri]]
            live = [shard for shard in live if shard.footer.source not in gone]
            gone = set()
    return Retirement(tuple(live), tuple(retired), tuple(sorted(gone - pruned)), refused)


def _by_source(
    shards: Iterable[IndexedShard], abandoned: Collection[str]
) -> tuple[dict[str, list[IndexedShard]], list[IndexedShard]]:
    """Return the shards of each source, and apart from them those of abandoned units."""
    by_source: dict[str, list[IndexedShard]] = defaultdict(list)
    apart: list[IndexedShard] = []
    for shard in shards:
        if shard.name.unit in abandoned:
            apart.append(shard)
        else:
            by_source[shard.footer.source].append(shard)
    return by_source, apart


def sources_under(shards: Iterable[IndexedShard], roots: Collection[str]) -> set[str]:
    """Return the URIs of the sources of some shards that lie under some inputs."""
    named = {root.rstrip("/") or "/" for root in roots}
    found: set[str] = set()
    others: set[str] = set()
    for shard in shards:
        if shard.footer.root in roots:
            found.add(shard.footer.source)
        else:
            others.add(shard.footer.source)
    return found | {uri for uri in others - found if not named.isdisjoint(_above(uri))}


def _one_version(shards: Sequence[IndexedShard], listed: str | None) -> list[IndexedShard]:
    """Return the version that is listed, else the one with most rows.

    There are several where a source changed again before its new version was complete, or where
    another run left before it had deleted the old one.
    """
    rows: Counter[str] = Counter()
    for shard in shards:
        rows[shard.footer.version] += shard.source_rows
    version = listed if listed in rows else max(rows, key=lambda found: (rows[found], found))
    return [shard for shard in shards if shard.footer.version == version]


def _above(uri: str) -> Iterator[str]:
    """Yield a source and the folders above it, as inputs may name them."""
    folder = uri
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    if uri.startswith("/"):
        yield "/"
