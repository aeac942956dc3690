"""The end of a run: decides what is live, writes the index, deletes the rest, looks at the ids.

Other jobs may be at work on the same output, so an index is written until what it lists is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipelines.corpus.conservation import conservation_problems
from pipelines.corpus.index import (
    INDEX_FILE,
    Index,
    IndexedShard,
    collect_shards,
    list_shards,
    published_index,
)
from pipelines.corpus.pin import Pin
from pipelines.corpus.shards import DATA, REJECTS, ShardName, group_by_unit
from pipelines.driver.id_check import check_ids
from pipelines.driver.rejects import sources_without_rows, too_many_rejected
from pipelines.driver.report import RunReport
from pipelines.driver.retire import Retirement, plan_retirement, sources_under
from pipelines.driver.source_versions import versions_now
from pipelines.errors import ConservationError, CorpusError, TooManyRejectedError
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.sources import roots_of
from pipelines.source.units import WorkUnit
from pipelines.storage import Storage

__all__ = ["Publisher"]

_STORE_THREADS = 16
_SHOWN = 10
_SETTLES_WITHIN_S = 60.0
"""For so long the listing may change from look to look: beside a job that commits all the time one
would look for as long as it runs. It publishes, too, when it ends."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Published:
    """What was published of a listing.

    Attributes:
        index: What is live.
        retirement: What is not.
        shards: All that the listing held, with their footers.
        left: Names of those that exist after it.
        unaccounted: Rows in that are not rows out.
    """

    index: Index
    retirement: Retirement
    shards: Sequence[IndexedShard]
    left: Set[ShardName]
    unaccounted: list[CorpusError]


@dataclass(frozen=True)
class Publisher:
    """Publishes one run's output.

    Attributes:
        settings: Of the run.
        storage: The output folder.
        pin: Its space and layout.
        units: All units of the plan, by key, done or not.
        done: Keys of those that were complete before the run.
        report: Takes note of what was retired.
        abandoned: Units of sources that went while the run was at work, by key; not in `units`.
    """

    settings: EmbedCorpusSettings
    storage: Storage
    pin: Pin
    units: Mapping[str, WorkUnit]
    done: Collection[str]
    report: RunReport
    abandoned: Mapping[str, WorkUnit] = field(default_factory=dict)

    def publish(self) -> list[CorpusError]:
        """Publish the index of what is live, delete what is retired, compare the ids.

        Returns:
            What is wrong with the corpus as it is published: the caller raises it once the report
            is written.
        """
        found = self._settle(list_shards(self.storage))
        duplicates = None
        if self.settings.check_ids and not found.index.ids_checked:
            # Last, and once: of a billion ids it takes half an hour, in which a run may be ended.
            lost: FileNotFoundError | None = None
            try:
                duplicates = check_ids(
                    self.storage,
                    found.index,
                    id_column=self.pin.layout.id_column,
                    gone=found.retirement.gone,
                )
            except FileNotFoundError as error:
                lost = error
            sizes = list_shards(self.storage)
            if sizes.keys() != found.left:
                # What we have published in the end must not be older than what another job has.
                found = self._settle(sizes, found.shards)
                if lost:
                    _LOG.warning("ids were not compared: another job has retired shards meanwhile")
            elif lost:
                raise lost
        others = (duplicates, found.retirement.refused, self._rejected(found.retirement.live))
        return [*found.unaccounted, *(problem for problem in others if problem is not None)]

    def _settle(self, sizes: dict[ShardName, int], read: Sequence[IndexedShard] = ()) -> _Published:
        """Publish a listing, and again while another job commits, retires or publishes meanwhile.

        Args:
            sizes: The listing.
            read: Shards whose footers this run has read before.
        """
        until = time.monotonic() + _SETTLES_WITHIN_S
        while True:
            found = self._publish_listing(sizes, read)
            sizes, read = list_shards(self.storage), found.shards
            if sizes.keys() == found.left:
                return found
            if time.monotonic() > until:
                _LOG.warning(
                    "another job has committed or retired shards all the while: the index lists "
                    "what was there before, until that job publishes or the next run does"
                )
                return found

    def _publish_listing(
        self, sizes: dict[ShardName, int], read: Sequence[IndexedShard]
    ) -> _Published:
        """Publish what a listing holds, and delete what is retired."""
        published = published_index(self.storage)
        shards = self._collect(sizes, published, read)
        incomplete = _incomplete(self.units, sizes)
        unfinished = {self.units[key].source.uri for key in incomplete}
        now = self._versions_now(shards, unfinished, published)
        retirement = plan_retirement(
            shards,
            units=self.units,
            incomplete=unfinished,
            abandoned=_of_incomplete_sources(self.abandoned, sizes),
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
        unaccounted = self._unaccounted(retirement, incomplete, now)
        return _Published(index, retirement, shards, left, unaccounted)

    def _rejected(self, live: Iterable[IndexedShard]) -> TooManyRejectedError | None:
        """Say which of this run's sources gave nothing; return the error if too many rows did."""
        ours = [shard for shard in live if shard.name.unit in self.units]
        if empty := sources_without_rows(ours):
            shown = ", ".join(empty[:_SHOWN])
            more = f" and {len(empty) - _SHOWN:,} more" if len(empty) > _SHOWN else ""
            _LOG.warning(
                "every row was rejected of %d sources: %s%s; %s says why",
                len(empty),
                shown,
                more,
                self.storage.below(REJECTS),
            )
        self.report.sources_all_rejected = len(empty)
        return too_many_rejected(
            ours, most=self.settings.max_rejected, rejects=self.storage.below(REJECTS)
        )

    @property
    def _roots(self) -> set[str]:
        return roots_of(self.settings.input)

    def _collect(
        self,
        sizes: dict[ShardName, int],
        published: Index | None,
        read: Sequence[IndexedShard],
    ) -> list[IndexedShard]:
        """Return the shards of a listing; footers that are known or in the index are not read."""
        listed = published.shards if published else ()
        # A shard that was deleted and embedded again has its old name and another footer.
        known = (s for s in listed if s.name.unit in self.done or s.name.unit not in self.units)
        return list(collect_shards(self.storage, sizes, [*known, *read]).values())

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
            and now.get(unit.source.uri) == unit.source.version
        ]
        if not found:
            return []
        return [
            ConservationError(
                f"rows in are not rows out plus rejected in {len(found)} places: "
                f"{found[0]}; run `twofold verify`"
            )
        ]


def _incomplete(units: Iterable[str], sizes: Iterable[ShardName]) -> list[str]:
    """Return the keys of those units that a listing does not hold to their end."""
    committed = group_by_unit(map(str, sizes))
    return [key for key in units if key not in committed or not committed[key].complete]


def _of_incomplete_sources(
    units: Mapping[str, WorkUnit], sizes: Iterable[ShardName]
) -> frozenset[str]:
    """Return the keys of units of whose source a listing does not hold all."""
    sources = {units[key].source.uri for key in _incomplete(units, sizes)}
    return frozenset(key for key, unit in units.items() if unit.source.uri in sources)


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
