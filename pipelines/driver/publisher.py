"""Publishes a listing of an output: decides what is live, writes the index, deletes the rest."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines.corpus.conservation import conservation_problems
from pipelines.corpus.index import INDEX_FILE, Index, IndexedShard, collect_shards, read_index
from pipelines.corpus.pin import Pin
from pipelines.corpus.shards import DATA, REJECTS, ShardName, group_by_unit
from pipelines.driver.report import RunReport
from pipelines.driver.retire import Retirement, plan_retirement, sources_under
from pipelines.driver.source_versions import versions_now
from pipelines.errors import ConservationError, CorpusError
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.units import WorkUnit
from pipelines.storage import Storage

__all__ = ["Published", "Publisher"]

_STORE_THREADS = 16
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        index: What is live.
        retirement: What is not.
        left: Shards that exist after it.
        unaccounted: Rows in that are not rows out.
    """

    index: Index
    retirement: Retirement
    left: Set[ShardName]
    unaccounted: list[CorpusError]


@dataclass(frozen=True)
class Publisher:
    """Publishes listings of one run's output.

    Attributes:
        settings: Of the run.
        storage: The output folder.
        pin: Its space and layout.
        units: All units of the plan, by key, done or not.
        done: Keys of those that were complete before the run.
        report: Takes note of what was retired.
    """

    settings: EmbedCorpusSettings
    storage: Storage
    pin: Pin
    units: Mapping[str, WorkUnit]
    done: Collection[str]
    report: RunReport

    def publish(self, sizes: dict[ShardName, int]) -> Published:
        """Publish what a listing holds, and delete what is retired."""
        published = _read_published(self.storage)
        shards = self._collect(sizes, published)
        incomplete = self._incomplete(sizes)
        unfinished = {self.units[key].source.uri for key in incomplete}
        now = self._versions_now(shards, unfinished, published)
        retirement = plan_retirement(
            shards,
            units=self.units,
            incomplete=unfinished,
            roots=self._roots,
            listed=_versions(published.shards) if published else None,
            now=now,
            prune_max=self.settings.prune_max if self.settings.prune else None,
        )
        self.report.complete(shards)
        self.report.retired_shards += len(retirement.retired)
        self.report.sources_gone = len(retirement.gone)
        index = _index_of(self.pin, retirement.live, published)
        if published != index:
            self.storage.replace(INDEX_FILE, index.to_json().encode())
        _delete_stale_rejects(self.storage, retirement.live)
        _delete_retired(self.storage, retirement.retired)
        for folder in (DATA, REJECTS):
            self.storage.delete_leftovers(folder)
        left = sizes.keys() - {shard.name for shard in retirement.retired}
        return Published(index, retirement, left, self._unaccounted(retirement, incomplete, now))

    @property
    def _roots(self) -> set[str]:
        return {unit.source.root for unit in self.units.values()}

    def _collect(self, sizes: dict[ShardName, int], published: Index | None) -> list[IndexedShard]:
        """Return the shards of a listing; footers that the index tells are not read again."""
        listed = published.shards if published else ()
        # A shard that was deleted and embedded again has its old name and another footer.
        known = (s for s in listed if s.name.unit in self.done or s.name.unit not in self.units)
        return list(collect_shards(self.storage, sizes, known).values())

    def _incomplete(self, sizes: Iterable[ShardName]) -> list[str]:
        """Return the keys of the plan's units that a listing does not hold to their end."""
        committed = group_by_unit(map(str, sizes))
        return [key for key in self.units if key not in committed or not committed[key].complete]

    def _versions_now(
        self, shards: Sequence[IndexedShard], unfinished: Set[str], published: Index | None
    ) -> dict[str, str]:
        """Look up the versions of the sources of which the plan alone does not say what is live.

        Args:
            shards: All that exist.
            unfinished: Sources of units that are not complete.
            published: The index, where there is one.
        """
        planned = {unit.source.uri for unit in self.units.values()}
        foreign = {shard.footer.source for shard in shards if shard.name.unit not in self.units}
        asked = (foreign & planned) | unfinished
        # Another job may have committed what came after our plan: what is there is not gone.
        unplanned = _inputs_under(self.storage, shards, self._roots) - planned
        if self.settings.prune:
            asked |= unplanned
        elif published:
            asked |= unplanned - _versions(published.shards).keys()
        return versions_now(asked, planned)

    def _unaccounted(
        self, retirement: Retirement, incomplete: Iterable[str], now: Mapping[str, str]
    ) -> list[CorpusError]:
        """Return the error of rows in that are not rows out, if there are any."""
        units = [self.units[key] for key in sorted(incomplete)]
        found = conservation_problems(retirement.live, self.units.values())
        found += [
            f"{unit.label}: not complete, though nothing failed it"
            for unit in units
            if unit.label not in self.report.failures
            and now.get(unit.source.uri, unit.source.version) == unit.source.version
        ]
        if not found:
            return []
        return [
            ConservationError(
                f"rows in are not rows out plus rejected in {len(found)} places: "
                f"{found[0]}; run `twofold verify`"
            )
        ]


def _index_of(pin: Pin, live: Sequence[IndexedShard], published: Index | None) -> Index:
    names = {shard.name for shard in live}
    return Index(
        pin.space.fingerprint,
        tuple(sorted(live, key=lambda shard: shard.name)),
        # Just these were found clean before, or more.
        ids_checked=published is not None
        and published.ids_checked
        and {shard.name for shard in published.shards} >= names,
    )


def _versions(shards: Iterable[IndexedShard]) -> dict[str, str]:
    """Return the version of each source that shards are of."""
    return {shard.footer.source: shard.footer.version for shard in shards}


def _inputs_under(
    storage: Storage, shards: Iterable[IndexedShard], roots: Collection[str]
) -> set[str]:
    """Return the sources under a run's inputs; the output's own shards are none, wherever it is."""
    own = storage.below(f"{DATA}/")
    return {uri for uri in sources_under(shards, roots) if not uri.startswith(own)}


def _read_published(storage: Storage) -> Index | None:
    try:
        return read_index(storage)
    except CorpusError as error:
        # It is a summary: what it says is read again from the shards.
        _LOG.warning("%s; rebuilding it from the shards", error)
        return None


def _delete_retired(storage: Storage, retired: Sequence[IndexedShard]) -> None:
    def delete(shard: IndexedShard) -> None:
        # In this order: a shard that is still there after a crash is retired by the next run.
        storage.delete(f"{REJECTS}/{shard.name}")
        storage.delete(f"{DATA}/{shard.name}")

    with ThreadPoolExecutor(_STORE_THREADS) as pool:
        list(pool.map(delete, retired))  # raises what one of them raised


def _delete_stale_rejects(storage: Storage, live: Sequence[IndexedShard]) -> None:
    """Delete rejects of a try that died before its commit, where the next try rejected nothing."""
    there = storage.sizes(REJECTS)
    for shard in live:
        if str(shard.name) in there and not shard.footer.rejected + shard.footer.unreadable:
            storage.delete(f"{REJECTS}/{shard.name}")
