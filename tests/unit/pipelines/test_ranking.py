"""A running top k: ties by id, documents by their first best row, whatever the order of blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import ranking as ranking_module
from pipelines.corpus.blocks import Block
from pipelines.corpus.shards import ShardName
from pipelines.ranking import Ranking

Row = tuple[str, int, float]
"""(id, chunk_index, score)."""


def a_block(number: int, rows: list[Row]) -> Block:
    """A block whose rows score what is given, for the query (1,); ten rows are before each."""
    return Block(
        shard=ShardName("0" * 32, number, False),
        row_start=10,
        ids=pa.array([row[0] for row in rows], pa.string()),
        chunk_index=np.array([row[1] for row in rows], np.int32),
        vectors=np.array([[row[2]] for row in rows], np.float32).reshape(-1, 1),
    )


def ranked(blocks: list[Block], k: int) -> list[tuple[str, float, int, int, int]]:
    ranking = Ranking(np.ones((1, 1), np.float32), k, cosine=False)
    for block in blocks:
        ranking.add(block)
    return [
        (hit.id, hit.score, hit.place.chunk_index, hit.place.shard.ordinal, hit.place.row)
        for hit in ranking.results()[0]
    ]


# Few ids and few scores: documents come back in other blocks, and nearly everything is a tie.
ROWS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 1), st.integers(0, 2)))


@settings(deadline=None)
@given(rows=st.lists(ROWS, max_size=6), order=st.randoms(), k=st.integers(1, 4))
def test_what_is_kept_does_not_depend_on_the_order_of_the_blocks(rows, order, k):
    blocks = [a_block(number, part) for number, part in enumerate(rows)]
    best: dict[str, tuple[float, int, int, int]] = {}
    for number, part in enumerate(rows):
        for position, (identity, chunk, score) in enumerate(part):
            place = (-float(score), chunk, number, 10 + position)
            best[identity] = min(place, best.get(identity, place))
    by_score = sorted((place[0], identity, *place[1:]) for identity, place in best.items())
    expected = [(identity, -score, *place) for score, identity, *place in by_score[:k]]
    order.shuffle(blocks)
    assert ranked(blocks, k) == expected


def test_of_equally_good_documents_the_first_ids_are_kept_within_a_block():
    rows = [(identity, 0, 1.0) for identity in "dcba"]
    assert [hit[0] for hit in ranked([a_block(0, rows)], 2)] == ["a", "b"]


def test_of_equally_good_documents_the_first_ids_are_kept_over_blocks():
    blocks = [a_block(number, [(identity, 0, 1.0)]) for number, identity in enumerate("dcba")]
    assert [hit[0] for hit in ranked(blocks, 2)] == ["a", "b"]


@pytest.mark.parametrize("ids", [["9", "10", "1", "2"], [9, 10, 1, 2]])
@pytest.mark.parametrize("blocks", [1, 4])
def test_trec_evals_order_keeps_the_last_ids_as_text_of_equally_good_documents(ids, blocks):
    ranking = Ranking(np.ones((1, 1), np.float32), 2, cosine=False, last_ids_first=True)
    for number, part in enumerate(np.array_split(np.array(ids), blocks)):
        one = a_block(number, [("", 0, 1.0)] * len(part))
        ranking.add(replace(one, ids=pa.array(part)))
    assert [str(hit.id) for hit in ranking.results()[0]] == ["9", "2"]


def test_a_document_of_many_good_chunks_leaves_room_for_others():
    rows = [("a", chunk, 5.0) for chunk in range(10)] + [("b", 0, 1.0), ("c", 0, 0.5)]
    assert [hit[0] for hit in ranked([a_block(0, rows)], 2)] == ["a", "b"]


@pytest.mark.parametrize("cosine", [False, True])
def test_every_query_is_ranked_for_itself(cosine):
    queries = np.array([[1, 0], [0, 1]], np.float32)
    ranking = Ranking(queries, 1, cosine=cosine)
    block = a_block(0, [("x", 0, 0.0), ("y", 0, 0.0)])
    vectors = np.array([[1, 0], [0, 1]], np.float16)
    ranking.add(Block(block.shard, 0, block.ids, block.chunk_index, vectors))
    assert [[hit.id for hit in hits] for hits in ranking.results()] == [["x"], ["y"]]


@pytest.mark.parametrize("scores_at_once", [1, 300, 10**6])
def test_many_queries_over_several_blocks_are_those_of_sorting_everything(
    monkeypatch, scores_at_once
):
    monkeypatch.setattr(ranking_module, "_SCORES_AT_ONCE", scores_at_once)
    random = np.random.default_rng(5)
    # Whole numbers: sums are exact and ties are many.
    queries = random.integers(-2, 3, (23, 6)).astype(np.float32)
    vectors = random.integers(-2, 3, (211, 6)).astype(np.float32)
    ids = [f"d{number:03}" for number in random.permutation(len(vectors))]
    ranking = Ranking(queries, 9, cosine=False)
    for number, start in enumerate(range(0, len(vectors), 50)):
        rows = slice(start, start + 50)
        count = len(ids[rows])
        shard = ShardName("0" * 32, number, False)
        chunk_index = np.zeros(count, np.int32)
        ranking.add(Block(shard, 0, pa.array(ids[rows]), chunk_index, vectors[rows]))
    expected = [sorted(zip((-row).tolist(), ids, strict=True))[:9] for row in queries @ vectors.T]
    found = [[(-hit.score, hit.id) for hit in hits] for hits in ranking.each()]
    assert found == expected
