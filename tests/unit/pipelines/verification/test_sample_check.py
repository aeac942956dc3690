"""Which rows of a corpus are looked at: distinct, spread, the same on every run."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.corpus.index import IndexedShard
from pipelines.corpus.shards import ShardFooter, ShardName
from pipelines.verification.sample_check import choose_rows


def a_shard(number: int, rows: int) -> IndexedShard:
    footer = ShardFooter(
        *("/in/a.csv", "v1", "csv", "/in", "file", 0, 0, number, False, 0, rows, rows, rows),
        *(0, 0, 0, 0, 0, "run", {}),
    )
    return IndexedShard(ShardName("0" * 32, number, False), 1, footer)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 50), max_size=8), count=st.integers(1, 500))
def test_as_many_rows_as_asked_for_or_all_of_them_are_chosen_each_once(sizes, count):
    shards = [a_shard(number, rows) for number, rows in enumerate(sizes)]
    chosen = choose_rows(shards, count)
    assert sum(map(len, chosen.values())) == min(count, sum(sizes))
    for name, rows in chosen.items():
        assert rows == sorted(set(rows))
        assert rows[0] >= 0
        assert rows[-1] < sizes[name.ordinal]
    assert choose_rows(list(reversed(shards)), count) == chosen


def test_rows_are_spread_over_the_shards_by_their_sizes():
    chosen = choose_rows([a_shard(0, 300), a_shard(1, 100), a_shard(2, 600)], 10)
    assert [len(rows) for rows in chosen.values()] == [3, 1, 6]
