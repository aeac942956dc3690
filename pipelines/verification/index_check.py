"""Whether a corpus is whole: its index against its shards, its units and sources among themselves.

Looks at names and footers only; what is inside the shards is the subject of `shard_check`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from pipelines.corpus.index import INDEX_FILE, Index, IndexedShard
from pipelines.corpus.pin import Pin
from pipelines.corpus.shards import ShardName
from pipelines.errors import CorpusError
from pipelines.source.units import RangeKind
from pipelines.storage import Storage

__all__ = ["gap_problems", "index_problems", "unit_problems", "version_problems"]

_CUT_INTO_RANGES = (RangeKind.ROW_GROUPS.value, RangeKind.BYTES.value)


def index_problems(
    storage: Storage, pin: Pin, sizes: Mapping[ShardName, int], shards: Sequence[IndexedShard]
) -> Iterator[str]:
    """Yield how `_index.json` differs from what it would be if it were made now.

    Args:
        storage: The output folder.
        pin: Its space and layout.
        sizes: Every shard that exists, with its size.
        shards: Those whose footers can be read.
    """
    text = storage.read(INDEX_FILE)
    if text is None:
        yield f"{INDEX_FILE} is missing; run `twofold embed` to its end, which writes it"
        return
    try:
        index = Index.from_json(text, INDEX_FILE)
    except CorpusError as error:
        yield str(error)
        return
    problems = list(_shard_problems(index, sizes, {shard.name: shard for shard in shards}))
    yield from problems
    # As a whole, for what is not the shards' own: fingerprint, totals, sources.
    rebuilt = Index(pin.space.fingerprint, tuple(shards), index.ids_checked)
    is_comparable = not problems and len(shards) == len(sizes)
    if is_comparable and json.loads(text) != json.loads(rebuilt.to_json()):
        yield f"{INDEX_FILE}: its space, totals or sources are not those of its shards"


def _shard_problems(
    index: Index, sizes: Mapping[ShardName, int], found: Mapping[ShardName, IndexedShard]
) -> Iterator[str]:
    listed = {shard.name: shard for shard in index.shards}
    for name in sorted(listed.keys() - sizes.keys()):
        yield f"{name}: is listed in {INDEX_FILE} and does not exist"
    for name in sorted(sizes.keys() - listed.keys()):
        yield f"{name}: exists and is not listed in {INDEX_FILE}; run `twofold embed` to its end"
    for name in sorted(listed.keys() & sizes.keys()):
        yield from _entry_problems(listed[name], sizes[name], found.get(name))


def _entry_problems(listed: IndexedShard, size: int, found: IndexedShard | None) -> Iterator[str]:
    if listed.size_bytes != size:
        yield f"{listed.name}: has {size} bytes, {INDEX_FILE} says {listed.size_bytes}"
    if found is not None and found.footer != listed.footer:
        there, here = asdict(listed.footer), asdict(found.footer)
        fields = ", ".join(name for name in here if here[name] != there[name])
        yield f"{listed.name}: its footer is not what {INDEX_FILE} says: {fields} differ"


def unit_problems(names: Sequence[ShardName]) -> Iterator[str]:
    """Yield which units are not a row of shards that ends with a last one.

    A shard that is missing in the middle is `pipelines.corpus.conservation`'s to name.
    """
    by_unit: dict[str, list[ShardName]] = defaultdict(list)
    for name in sorted(names):
        by_unit[name.unit].append(name)
    for found in by_unit.values():
        for ordinal, count in Counter(name.ordinal for name in found).items():
            if count > 1:
                yield f"{found[0]}: shard {ordinal} of its unit exists as a last one and as none"
        if not any(name.last for name in found):
            yield f"{found[-1]}: the end of its unit is missing; run `twofold embed`"
        for name in found[:-1]:
            if name.last and name.ordinal < found[-1].ordinal:
                yield f"{found[-1]}: comes behind the last shard of its unit, {name}"


def version_problems(shards: Sequence[IndexedShard]) -> Iterator[str]:
    """Yield the sources of which more than one version is there."""
    first: dict[str, dict[str, ShardName]] = defaultdict(dict)
    for shard in sorted(shards, key=lambda shard: shard.name):
        first[shard.footer.source].setdefault(shard.footer.version, shard.name)
    for source, versions in first.items():
        if len(versions) > 1:
            shown = ", ".join(f"{version} ({name})" for version, name in sorted(versions.items()))
            yield f"{source} is there in {len(versions)} versions: {shown}; run `twofold embed`"


def gap_problems(shards: Sequence[IndexedShard]) -> Iterator[str]:
    """Yield the ranges of sources that no unit has.

    Args:
        shards: All that exist; with a footer unread, a range would seem to be missing.
    """
    ranges: dict[tuple[str, str], dict[tuple[int, int], ShardName]] = defaultdict(dict)
    for shard in shards:
        footer = shard.footer
        if footer.range_kind in _CUT_INTO_RANGES:
            unit_range = footer.range_start, footer.range_stop
            ranges[footer.source, footer.version].setdefault(unit_range, shard.name)
    for (source, _), found in ranges.items():
        expected = 0
        for (start, stop), name in sorted(found.items()):
            if start != expected:
                yield (
                    f"{name}: its unit begins at {start} of {source}, expected {expected}: the "
                    "shards between are missing; run `twofold embed`"
                )
            expected = stop
