"""Which shards a unit is told of: of its own file before, or of what it took the place of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipelines.corpus.earlier_shards import EarlierShard, EarlierShards
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
    roots = {each.source.root for each in units}
    return earlier_shards(units, units, listed, roots=roots).of(unit)


def names(*shards: IndexedShard) -> tuple[ShardName, ...]:
    return tuple(shard.name for shard in shards)


OLD = an_indexed_shard(unit_of("2026/a", "v1"))
OTHER = an_indexed_shard(unit_of("2026/b", "v1"))
CHANGED = unit_of("2026/a", "v2")
ROOTS = {"/in"}


def test_a_changed_file_has_the_shards_of_its_version_before_and_no_other_files():
    assert earlier_of(CHANGED, [OTHER, OLD]) == names(OLD)
    assert earlier_of(CHANGED, [OTHER, OLD], unit_of("2026/b", "v2")) == names(OLD)


def test_shards_of_the_version_that_is_being_embedded_are_no_earlier_ones():
    assert earlier_of(CHANGED, [an_indexed_shard(CHANGED)]) == ()


def test_a_new_file_has_those_of_the_files_that_are_gone_from_its_folder():
    new = unit_of("2026/c")
    assert set(earlier_of(new, [OLD, OTHER])) == {*names(OLD, OTHER)}
    # One is still there, or has changed; another folder's are not asked.
    assert earlier_of(new, [OLD, OTHER], unit_of("2026/b", "v1")) == names(OLD)
    assert earlier_of(new, [OLD, OTHER], unit_of("2026/b", "v2")) == names(OLD)
    assert earlier_of(unit_of("2027/c"), [OLD, OTHER]) == ()


def test_what_is_not_under_the_inputs_of_a_run_is_not_gone():
    """The run was given some files of a folder."""
    new = a_unit(a_source("/in/2026/c", root="/in/2026/c"))
    assert earlier_of(new, [OLD, OTHER]) == ()
    assert earlier_of(unit_of("2026/c"), [OLD]) == names(OLD)


def test_what_no_unit_that_is_to_be_done_could_use_does_not_travel():
    assert earlier_shards([CHANGED], [], [OLD, OTHER], roots=ROOTS) == EarlierShards()
    found = earlier_shards([CHANGED], [CHANGED], [OLD, OTHER], roots=ROOTS)
    assert found.by_place.keys() == {"/in/2026/a", "/in/2026/"}
    new = unit_of("2027/c")
    assert earlier_shards([CHANGED, new], [new], [OLD, OTHER], roots=ROOTS) == EarlierShards()


def shards_of(*starts: int, rows: int = 2, row: int = 0) -> list[EarlierShard]:
    """Return shards of one file that begin there."""
    return [
        EarlierShard("/in/a", start, row, ShardName(f"{start:032x}", row, last=True), rows)
        for start in starts
    ]


def of(unit: WorkUnit, shards: Sequence[EarlierShard], *, size: int, row: int = 0) -> list[int]:
    """Return at which starts the shards are that a unit of a size is told of."""
    places = EarlierShards({unit.source.uri: shards})
    return [int(name.unit, 16) for name in places.of(replace(unit, size_bytes=size), row)]


@pytest.mark.parametrize(
    ("start", "size", "told"),
    [
        (0, 0, [0, 10, 20, 30]),
        (52, 0, [40, 50, 60, 70]),
        (52, 2**20, [20, 30, 40, 50, 60, 70, 80, 90]),
        (1000, 0, [60, 70, 80, 90]),
        (0, 2**30, [*range(0, 100, 10)]),
    ],
)
def test_a_unit_is_told_of_the_nearest_in_its_file_the_more_the_larger_it_is(start, size, told):
    unit = unit_of("a", "v2", start)
    assert of(unit, shards_of(*range(0, 100, 10)), size=size) == told


def test_no_unit_is_told_of_more_than_an_actor_may_hold():
    unit = unit_of("a", "v2", 0)
    assert len(of(unit, shards_of(*range(1000)), size=2**40)) == 256
    assert len(of(unit, shards_of(*range(1000), rows=100_000), size=2**40)) == 20
    assert len(of(unit, shards_of(*range(1000), rows=10**7), size=2**40)) == 1
    assert len(of(unit, shards_of(*range(1000), rows=0), size=2**40)) == 256


def test_a_unit_looks_further_on_as_it_goes_on_and_seldom_elsewhere():
    """A compressed file is one unit, however many rows it has."""
    rows = range(0, 10_000, 10)
    shards = [shard for row in rows for shard in shards_of(0, rows=10, row=row)]
    places = EarlierShards({"/in/a": shards})
    unit = replace(unit_of("a", "v2"), size_bytes=2**40)
    windows = {row: places.of(unit, row) for row in rows}
    for row, window in windows.items():
        told = {name.ordinal for name in window}
        near = range(max(0, row - 600), min(9_990, row + 600) + 1, 10)
        assert told >= set(near), row
    assert len(set(windows.values())) < 20


@pytest.mark.parametrize("number", [0, 17, 99])
def test_of_a_folder_that_is_written_anew_the_files_with_a_name_like_its_own_come_first(number):
    """Spark's: a number, and a name that is another each time."""
    old = [
        EarlierShard(f"/in/part-{n:05}-1f2e", 0, 0, ShardName(f"{n:032x}", 0, last=True), 9)
        for n in range(100)
    ]
    unit = replace(unit_of(f"part-{number:05}-0a0b"), size_bytes=0)
    told = [int(name.unit, 16) for name in EarlierShards({"/in/": old}).of(unit)]
    assert number in told
    assert len(told) == 4
