from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from encoder.batching import (
    Batch,
    Packing,
    RowLimits,
    bucket_length,
    plan_batches,
    plan_packings,
    plan_short_texts,
)

MAX_SEQ_LENGTH = 512
lengths = st.lists(st.integers(1, MAX_SEQ_LENGTH), max_size=200)
budgets = st.integers(1, 5000)


@settings(deadline=None)
@given(lengths=lengths, budget=budgets)
def test_every_text_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, max_batch_tokens=budget, max_seq_length=MAX_SEQ_LENGTH)

    indices = [int(index) for batch in batches for index in batch.indices]
    assert sorted(indices) == list(range(len(lengths)))
    for batch in batches:
        assert batch.padded_tokens <= budget or len(batch.indices) == 1
        assert all(lengths[index] <= batch.padded_length for index in batch.indices)
        assert batch.padded_length <= MAX_SEQ_LENGTH


@settings(deadline=None)
@given(lengths=lengths)
def test_longest_texts_come_first(lengths: list[int]) -> None:
    batches = plan_batches(lengths, max_batch_tokens=1024)

    ordered = [lengths[index] for batch in batches for index in batch.indices]
    assert ordered == sorted(lengths, reverse=True)


@settings(deadline=None)
@given(st.integers(1, 10_000))
def test_a_bucket_is_never_shorter_and_adds_at_most_a_sixteenth(length: int) -> None:
    padded = bucket_length(length)

    assert length <= padded <= length * 17 / 16
    assert bucket_length(padded) == padded


def test_a_bucket_never_exceeds_the_models_limit() -> None:
    assert bucket_length(509, 510) == 510
    assert bucket_length(509) == 512


def test_few_shapes_occur() -> None:
    lengths = np.random.default_rng(0).integers(1, 513, 100_000)

    batches = plan_batches(lengths, max_batch_tokens=1024, max_seq_length=512)

    assert len({batch.padded_length for batch in batches}) <= 112
    # Of every length a full batch, and the last one of its group.
    assert len({(len(batch.indices), batch.padded_length) for batch in batches}) <= 2 * 112


def padding_waste(lengths: Sequence[int], batches: Sequence[Batch | Packing]) -> float:
    """Return the share of the computed tokens that are padding."""
    return 1 - sum(lengths) / sum(batch.padded_tokens for batch in batches)


def test_padding_waste_of_like_lengths_is_small() -> None:
    lengths = np.random.default_rng(0).integers(3, 513, 2_000)

    batches = plan_batches(lengths, max_batch_tokens=1024, max_seq_length=512)

    assert 0 < padding_waste(lengths, batches) < 0.03


def test_nothing_to_encode_gives_no_batches() -> None:
    assert plan_batches([], max_batch_tokens=10) == []


def cost(batches: Sequence[Batch | Packing], overhead_tokens: int) -> int:
    return sum(batch.padded_tokens + overhead_tokens for batch in batches)


def least_cost(ordered: list[int], budget: int, overhead_tokens: int) -> int:
    """The cheapest way of cutting rows into batches, by trying every cut."""
    least = [0]
    for end in range(1, len(ordered) + 1):
        costs = []
        for first in range(end):
            padded = (end - first) * bucket_length(ordered[first])
            if end - first == 1 or padded <= budget:
                costs.append(least[first] + padded + overhead_tokens)
        least.append(min(costs))
    return least[-1]


few_lengths = st.lists(st.integers(1, 100), min_size=1, max_size=30)


@settings(deadline=None)
@given(lengths=few_lengths, overhead=st.integers(0, 200))
def test_where_the_budget_is_large_no_other_cut_is_cheaper(
    lengths: list[int], overhead: int
) -> None:
    batches = plan_batches(lengths, max_batch_tokens=10_000, overhead_tokens=overhead)

    ordered = sorted(lengths, reverse=True)
    assert cost(batches, overhead) == least_cost(ordered, 10_000, overhead)


@settings(deadline=None)
@given(lengths=lengths, budget=budgets, overhead=st.integers(0, 200))
def test_cutting_early_never_costs_more_than_filling_the_budget(
    lengths: list[int], budget: int, overhead: int
) -> None:
    batches = plan_batches(lengths, max_batch_tokens=budget, overhead_tokens=overhead)
    filled = plan_batches(lengths, max_batch_tokens=budget, overhead_tokens=10**9)

    # A group's last batch is padded less than the plan reckoned, so a batch of slack is allowed.
    assert cost(batches, overhead) <= cost(filled, overhead) + overhead + budget


def test_a_long_text_among_short_ones_does_not_make_them_long() -> None:
    batches = plan_batches([100, 10, 10, 10], max_batch_tokens=1024, overhead_tokens=48)

    assert [len(batch.indices) for batch in batches] == [1, 3]


def test_texts_of_unlike_length_share_a_forward_where_another_would_cost_more() -> None:
    batches = plan_batches([12, 10, 10, 10], max_batch_tokens=1024, overhead_tokens=48)
    as_many = plan_batches([12] * 5 + [10] * 12, max_batch_tokens=120, overhead_tokens=48)

    assert len(batches) == 1
    assert [batch.padded_tokens for batch in as_many] == [60, 120], "it takes two in any case"


def test_many_texts_fill_the_budget() -> None:
    batches = plan_batches([32] * 320, max_batch_tokens=1024, overhead_tokens=48)

    assert [batch.padded_tokens for batch in batches] == [1024] * 10


ROW_COUNTS = (1, 2, 3, 4, 8)
ROWS = RowLimits(row_tokens=64, max_texts=8, row_counts=ROW_COUNTS, overhead_tokens=16)


@settings(deadline=None)
@example(lengths=[3] * 20)
@given(lengths=st.lists(st.integers(0, 64), max_size=300))
def test_every_short_text_is_in_one_row_that_has_room_for_it(lengths: list[int]) -> None:
    packings = plan_packings(lengths, ROWS)

    rows = [row for packing in packings for row in packing.rows]
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for packing in packings:
        assert len(packing.rows) in ROW_COUNTS
        assert packing.padded_tokens == 64 * len(packing.rows)
        assert packing.indices.tolist() == [index for row in packing.rows for index in row]
    for row in rows:
        assert 1 <= len(row) <= 8
        assert sum(lengths[index] for index in row) <= 64
    # Two rows that would fit into one: only where one of them was full of texts.
    filled = sorted(sum(lengths[i] for i in row) for row in rows if len(row) < 8)
    assert len(filled) < 2 or filled[0] + filled[1] > 32


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 80) | st.integers(0, MAX_SEQ_LENGTH), max_size=200),
    overhead=st.integers(0, 100),
)
def test_texts_share_rows_only_where_it_costs_no_more(lengths: list[int], overhead: int) -> None:
    limits = {"max_batch_tokens": 1024, "max_seq_length": 512, "overhead_tokens": overhead}

    rows = replace(ROWS, padded_overhead_tokens=overhead)
    batches, packings = plan_short_texts(lengths, rows, **limits)

    forwards: list[Batch | Packing] = [*batches, *packings]
    indices = [int(index) for forward in forwards for index in forward.indices]
    assert sorted(indices) == list(range(len(lengths)))
    planned = cost(batches, overhead) + cost(packings, 16)
    assert planned <= cost(plan_batches(lengths, **limits), overhead)
    assert all(0 < lengths[index] <= 64 for packing in packings for index in packing.indices)


def test_queries_share_rows_and_texts_that_fill_half_a_row_do_not() -> None:
    limits = {"max_batch_tokens": 1024, "overhead_tokens": 48}
    rows = replace(ROWS, padded_overhead_tokens=96)

    _, crowd = plan_short_texts([5, 9, 12, 14, 17, 21, 30, 38] * 8, rows, **limits)
    _, two = plan_short_texts([12, 14], rows, **limits)
    _, alike = plan_short_texts([36] * 8, rows, **limits)

    assert padding_waste([5, 9, 12, 14, 17, 21, 30, 38] * 8, crowd) < 0.12
    assert [packing.rows for packing in two] == [[[1, 0]]]
    assert alike == []


@pytest.mark.parametrize(
    ("rows", "streams", "expected"),
    [
        (1, 1, [1]),
        (7, 1, [4, 3]),
        (9, 1, [8, 1]),
        (16, 1, [8, 8]),
        (16, 4, [4] * 4),
        (5, 2, [3, 2]),
    ],
)
def test_rows_are_shared_out_among_streams_and_cut_into_sizes_that_are_compiled(
    rows: int, streams: int, expected: list[int]
) -> None:
    packings = plan_packings([64] * rows, replace(ROWS, streams=streams))

    assert [len(packing.rows) for packing in packings] == expected
