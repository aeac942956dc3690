"""The sources of a corpus as they are now: the units of those that did not change, to read again.

A footer names a source, its version and a range; how to read it (format, partition, first row) is
found by planning the source once more, as the job did.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from encoder.errors import TwofoldError
from pipelines.corpus.index import IndexedShard
from pipelines.corpus.pin import Pin
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources
from pipelines.source.units import Format, Source, WorkUnit
from pipelines.storage import STORE_ERRORS

__all__ = ["READ_ERRORS", "CurrentSources", "plan_current_sources", "reason_of", "units_of"]

READ_ERRORS = (TwofoldError, *STORE_ERRORS)
"""What reading a source again may raise; to `verify` each is something that it found."""
_THREADS = 16


@dataclass(frozen=True)
class CurrentSources:
    """What can be read again, and what cannot.

    Attributes:
        units: Work units of the sources that are as they were embedded, by key.
        problems: A line for each source that is not, naming a shard of it.
        others: Sources that are there now, under the same inputs, of which no shard was given.
    """

    units: dict[str, WorkUnit]
    problems: tuple[str, ...]
    others: tuple[Source, ...]


def plan_current_sources(
    shards: Sequence[IndexedShard], pin: Pin, input_format: Format | None, written: str
) -> CurrentSources:
    """Plan the sources of some shards as they are now.

    Args:
        shards: Whose sources are wanted.
        pin: The corpus; its sharding decides the units.
        input_format: Format of every file; None takes it from each file's name.
        written: Folder of the corpus' shards, which are no sources.
    """
    wanted = {(s.footer.source, s.footer.version): s for s in sorted(shards, key=lambda s: s.name)}
    roots = sorted({s.footer.root for s in wanted.values()})
    listed, unlisted = _list_roots(roots, input_format, written)
    problems: list[str] = []
    unchanged: list[tuple[Source, IndexedShard]] = []
    for (uri, version), shard in wanted.items():
        source = listed.get(uri)
        if source is not None and source.version == version:
            unchanged.append((source, shard))
        elif source is not None:
            problems.append(
                f"{shard.name}: {uri} changed since it was embedded (version {version} then, "
                f"{source.version} now); run `twofold embed`"
            )
        else:
            why = unlisted.get(shard.footer.root, "it is gone")
            problems.append(
                f"{shard.name}: {uri} cannot be read again: {why}; run `twofold embed` if it moved"
            )
    units: dict[str, WorkUnit] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for outcome in pool.map(lambda pair: _plan(*pair, pin=pin), unchanged):
            if isinstance(outcome, str):
                problems.append(outcome)
            else:
                units.update((unit.key, unit) for unit in outcome)
    known = {uri for uri, _ in wanted}
    others = tuple(source for uri, source in sorted(listed.items()) if uri not in known)
    return CurrentSources(units, tuple(problems), others)


def reason_of(error: BaseException) -> str:
    """Return why a source could not be read, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _list_roots(
    roots: Sequence[str], input_format: Format | None, written: str
) -> tuple[dict[str, Source], dict[str, str]]:
    """Return the sources by URI, and why which root could not be listed."""
    listed: dict[str, Source] = {}
    unlisted: dict[str, str] = {}
    for root in roots:
        try:
            found = list_sources([root], input_format, written)
            listed.update((source.uri, source) for source in found)
        except READ_ERRORS as error:
            unlisted[root] = reason_of(error)
    return listed, unlisted


def units_of(source: Source, pin: Pin) -> list[WorkUnit]:
    """Return the work units of a source, as the job that wrote the corpus plans them.

    Raises:
        TwofoldError: It cannot be read, or another of `READ_ERRORS`.
    """
    return plan_units([source], unit_bytes=pin.layout.unit_bytes, tolerate_unreadable=True)


def _plan(source: Source, shard: IndexedShard, *, pin: Pin) -> list[WorkUnit] | str:
    try:
        return units_of(source, pin)
    except READ_ERRORS as error:
        return f"{shard.name}: {source.uri} cannot be read again: {reason_of(error)}"
