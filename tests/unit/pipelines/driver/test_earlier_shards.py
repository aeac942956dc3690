"""Which shards a unit is told of: of its own file before, or of what it took the place of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipelines.corpus import earlier_shards as module
from pipelines.corpus.earlier_shards import EarlierShards
from pipelines.corpus.index import IndexedShard
from pipelines.corpus.shards import ShardName
from pipelines.driver.earlier_shards import earlier_shards
from pipelines.source.units import WorkUnit
from support.corpora import a_source, a_unit, an_indexed_shard


def unit_of(name: str, version: str = "v1", start: int = 0, root: str = "/in") -> WorkUnit:
    return a_unit(a_source(f"{root}/{name}", version, root), start)


def earlier_of(
    unit: WorkUnit, listed: Sequence[IndexedShard], *others: WorkUnit
) -> tuple[ShardName, ...]:
    units = [unit, *others]
    return earlier_shards(units, units, listed).of(unit)


def names(*shards: IndexedShard) -> tuple[ShardName, ...]:
    return tuple(shard.name for shard in shards)


OLD = an_indexed_shard(unit_of("2026/a", "v1"))
OTHER = an_indexed_shard(unit_of("2026/b", "v1"))
CHANGED = unit_of("2026/a", "v2")


def test_a_changed_file_has_the_shards_of_its_version_before_and_no_other_files():
    assert earlier_of(CHANGED, [OTHER, OLD]) == names(OLD)
    assert earlier_of(CHANGED, [OTHER, OLD], unit_of("2026/b", "v2")) == names(OLD)


def test_shards_of_the_version_that_is_being_embedded_are_no_earlier_ones():
    assert earlier_of(CHANGED, [an_indexed_shard(CHANGED)]) == ()


def test_a_new_file_has_those_of_the_files_that_are_gone_from_its_folder():
    new = unit_of("2026/c")
    assert earlier_of(new, [OLD, OTHER]) == tuple(sorted(names(OLD, OTHER)))
    # One is still there, or has changed; another folder's are not asked.
    assert earlier_of(new, [OLD, OTHER], unit_of("2026/b", "v1")) == names(OLD)
    assert earlier_of(new, [OLD, OTHER], unit_of("2026/b", "v2")) == names(OLD)
    assert earlier_of(unit_of("2027/c"), [OLD, OTHER]) == ()


def test_what_is_not_under_the_inputs_of_a_run_is_not_gone():
    elsewhere = an_indexed_shard(unit_of("2026/z", root="/elsewhere"))
    assert earlier_of(unit_of("2026/c", root="/in"), [elsewhere]) == ()


def test_what_no_unit_that_is_to_be_done_could_use_does_not_travel():
    assert earlier_shards([CHANGED], [], [OLD, OTHER]) == EarlierShards()
    assert earlier_shards([CHANGED], [CHANGED], [OLD, OTHER]).by_place.keys() == {
        "/in/2026/a",
        "/in/2026/",
    }
    new = unit_of("2027/c")
    assert earlier_shards([CHANGED, new], [new], [OLD, OTHER]) == EarlierShards()


def test_of_more_than_an_actor_may_hold_the_nearest_in_the_file_are_told(monkeypatch):
    shards = [an_indexed_shard(unit_of("2026/a", "v1", start), 0) for start in range(0, 100, 10)]
    unit = unit_of("2026/a", "v2", start=52)
    monkeypatch.setattr(module, "_MOST_SHARDS", 3)
    assert earlier_of(unit, shards) == names(shards[5], shards[6], shards[4])
    monkeypatch.setattr(module, "_MOST_SHARDS", 100)
    monkeypatch.setattr(module, "_MOST_ROWS", 4)  # two rows each
    assert earlier_of(unit, shards) == names(shards[5], shards[6])


@pytest.mark.parametrize("kind", ["bytes", "row_groups"])
def test_ranges_of_another_kind_are_not_compared(monkeypatch, kind):
    """The file was text before, and is read as Parquet now."""
    shards = [
        an_indexed_shard(unit_of("2026/a", "v1", start), 0, range_kind=kind)
        for start in (0, 10, 20)
    ]
    monkeypatch.setattr(module, "_MOST_SHARDS", 1)
    found = earlier_of(unit_of("2026/a", "v2", start=20), shards)
    assert found == (names(shards[2]) if kind == "bytes" else tuple(sorted(names(*shards))[:1]))


def test_where_a_file_begins_says_nothing_of_other_files(monkeypatch):
    monkeypatch.setattr(module, "_MOST_SHARDS", 1)
    shards = [an_indexed_shard(unit_of("2026/a", "v1", start), 0) for start in (0, 20)]
    found = earlier_of(unit_of("2026/c", start=20), shards)
    assert found == tuple(sorted(names(*shards))[:1])
