"""The end of a run: check what is there, publish the index, retire what is no longer live."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pipelines.corpus.conservation import conservation_problems
from pipelines.corpus.ids import find_duplicate_ids
from pipelines.corpus.index import (
    INDEX_FILE,
    Index,
    IndexedShard,
    collect_shards,
    list_shards,
    read_index,
)
from pipelines.corpus.pin import Pin
from pipelines.corpus.shards import DATA, REJECTS, ShardName, group_by_unit
from pipelines.driver.report import RunReport
from pipelines.driver.retire import Retirement, plan_retirement, sources_under
from pipelines.errors import ConservationError, CorpusError, DuplicateIdError
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.listing import is_local
from pipelines.source.sources import current_version
from pipelines.source.units import WorkUnit
from pipelines.storage import Storage

__all__ = ["publish"]

_STORE_THREADS = 16
_LOG = logging.getLogger(__name__)
_MOST_LOOKS = 3


def publish(
    settings: EmbedCorpusSettings,
    storage: Storage,
    pin: Pin,
    units: Mapping[str, WorkUnit],
    done: Collection[str],
    report: RunReport,
) -> list[CorpusError]:
    """Publish the index of what is live, then delete what is retired.

    Args:
        settings: Of the run.
        storage: The output folder.
        pin: Its space and layout.
        units: All units of the plan, by key, done or not.
        done: Keys of those that were complete before the run.
        report: Takes note of what was retired.

    Returns:
        What is wrong with the corpus as it is published: the caller raises it once the report is
        written.
    """
    for _ in range(_MOST_LOOKS):
        sizes = list_shards(storage)
        found = _publish_listed(settings, storage, pin, units, done, report, sizes)
        if list_shards(storage).keys() == found.left:
            break
        # Another job committed or retired meanwhile, and may have published before us.
    duplicates = None
    if settings.check_ids and not found.index.ids_checked:
        # Last, and once: of a billion ids it takes half an hour, in which a run may be ended.
        lost: FileNotFoundError | None = None
        try:
            duplicates = _check_ids(storage, pin, found)
        except FileNotFoundError as error:
            lost = error
        sizes = list_shards(storage)
        if sizes.keys() != found.left:
            # What we have published in the end must not be older than what another job has.
            found = _publish_listed(settings, storage, pin, units, done, report, sizes)
            if lost:
                _LOG.warning("ids were not compared: another job has retired shards meanwhile")
        elif lost:
            raise lost
    refused = found.retirement.refused
    return [*found.unaccounted, *(p for p in (duplicates, refused) if p is not None)]


@dataclass(frozen=True)
class _Published:
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


def _publish_listed(
    settings: EmbedCorpusSettings,
    storage: Storage,
    pin: Pin,
    units: Mapping[str, WorkUnit],
    done: Collection[str],
    report: RunReport,
    sizes: dict[ShardName, int],
) -> _Published:
    """Publish what a listing holds, and delete what is retired."""
    published = _published(storage)
    listed = published.shards if published else ()
    # A shard that was deleted and embedded again has its old name and another footer.
    known = (s for s in listed if s.name.unit in done or s.name.unit not in units)
    shards = collect_shards(storage, sizes, known)
    committed = group_by_unit(map(str, sizes))
    incomplete = {
        unit.source.uri
        for key, unit in units.items()
        if key not in committed or not committed[key].complete
    }
    roots = {unit.source.root for unit in units.values()}
    planned = {unit.source.uri for unit in units.values()}
    foreign = {shard.footer.source for shard in shards.values() if shard.name.unit not in units}
    asked = (foreign & planned) | incomplete
    of_listed = {shard.footer.source: shard.footer.version for shard in listed}
    # Another job may have committed what came after our plan: what is there is not gone.
    unplanned = _inputs_under(storage, shards.values(), roots) - planned
    if settings.prune:
        asked |= unplanned
    elif published:
        asked |= unplanned - of_listed.keys()
    now = _versions_now(asked - _other_names(asked - planned, planned))
    retirement = plan_retirement(
        shards.values(),
        units=units,
        incomplete=incomplete,
        roots=roots,
        listed=of_listed if published else None,
        now=now,
        prune_max=settings.prune_max if settings.prune else None,
    )
    report.complete(shards.values())
    report.retired_shards += len(retirement.retired)
    report.sources_gone = len(retirement.gone)
    problems: list[CorpusError] = []
    missing = [
        unit.label
        for key, unit in sorted(units.items())
        if not (key in committed and committed[key].complete)
        and unit.label not in report.failures
        and now.get(unit.source.uri, unit.source.version) == unit.source.version
    ]
    unaccounted = conservation_problems(retirement.live, units.values())
    unaccounted += [f"{label}: not complete, though nothing failed it" for label in missing]
    if unaccounted:
        problems.append(
            ConservationError(
                f"rows in are not rows out plus rejected in {len(unaccounted)} places: "
                f"{unaccounted[0]}; run `twofold verify`"
            )
        )
    names = {shard.name for shard in retirement.live}
    index = Index(
        pin.space.fingerprint,
        tuple(sorted(retirement.live, key=lambda shard: shard.name)),
        # Just these were found clean before, or more.
        ids_checked=published is not None
        and published.ids_checked
        and {shard.name for shard in published.shards} >= names,
    )
    if published != index:
        storage.replace(INDEX_FILE, index.to_json().encode())
    _delete_stale_rejects(storage, retirement.live)
    _delete_retired(storage, retirement.retired)
    left = sizes.keys() - {shard.name for shard in retirement.retired}
    return _Published(index, retirement, left, problems)


def _inputs_under(
    storage: Storage, shards: Iterable[IndexedShard], roots: Collection[str]
) -> set[str]:
    """Return the sources under a run's inputs; the output's own shards are none, wherever it is."""
    own = storage.below(f"{DATA}/")
    return {uri for uri in sources_under(shards, roots) if not uri.startswith(own)}


def _other_names(uris: Collection[str], planned: Collection[str]) -> set[str]:
    """Return those URIs of local files that are, through links, planned ones under another name."""
    local = [uri for uri in uris if is_local(uri)]
    real = {os.path.realpath(uri) for uri in planned if is_local(uri)} if local else set()
    return {uri for uri in local if os.path.realpath(uri) in real}


def _versions_now(uris: Collection[str]) -> dict[str, str]:
    """Look up the version of sources; those that are gone are left out."""
    asked = sorted(uris)
    with ThreadPoolExecutor(_STORE_THREADS) as pool:
        found = pool.map(_version_now, asked)
        return {uri: version for uri, version in zip(asked, found, strict=True) if version}


def _version_now(uri: str) -> str | None:
    try:
        return current_version(uri)[0]
    except (FileNotFoundError, NotADirectoryError):
        return None


def _published(storage: Storage) -> Index | None:
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


def _check_ids(storage: Storage, pin: Pin, published: _Published) -> DuplicateIdError | None:
    """Look for duplicate ids; note in the index that there are none."""
    index = published.index
    found = find_duplicate_ids(
        storage,
        [shard.name for shard in index.shards],
        id_column=pin.layout.id_column,
        rows=_rows(index.shards),
    )
    if not found:
        checked = replace(index, ids_checked=True).to_json().encode()
        if read_index(storage) == index:  # else another job has published, and checks
            storage.replace(INDEX_FILE, checked)
        return None
    identity, chunk, where = found[0]
    chunk_note = f" (chunk {chunk})" if chunk else ""
    return DuplicateIdError(
        f"ids are not unique: {identity!r}{chunk_note} occurs in shards "
        f"{' and '.join(sorted(set(where)))}"
        f"{f', and {len(found) - 1} more ids or so' if len(found) > 1 else ''}; all rows are "
        f"written. {_advice(published.retirement)}"
    )


def _advice(retirement: Retirement) -> str:
    if retirement.gone:
        return (
            f"{len(retirement.gone)} sources are gone but live ({retirement.gone[0]}): if their "
            "rows have moved, --prune retires the old ones"
        )
    return "Make --id-column unique in the source and run again, or pass --no-check-ids"


def _rows(shards: tuple[IndexedShard, ...]) -> int:
    return sum(shard.footer.rows for shard in shards)
