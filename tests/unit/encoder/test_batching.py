from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.batching import Batch, bucket_length, padding_waste, plan_batches

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


def test_padding_waste_of_like_lengths_is_small() -> None:
    lengths = np.random.default_rng(0).integers(3, 513, 2_000)

    batches = plan_batches(lengths, max_batch_tokens=1024, max_seq_length=512)

    assert 0 < padding_waste(lengths, batches) < 0.03


def test_padding_waste_is_the_share_of_computed_tokens() -> None:
    batches = plan_batches([8, 4], max_batch_tokens=100, overhead_tokens=10)

    assert padding_waste([8, 4], batches) == pytest.approx(4 / 16)
    assert padding_waste([], []) == 0.0


def test_nothing_to_encode_gives_no_batches() -> None:
    assert plan_batches([], max_batch_tokens=10) == []


def cost(batches: list[Batch], overhead_tokens: int) -> int:
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

    assert len(batches) == 1


def test_many_texts_fill_the_budget() -> None:
    batches = plan_batches([32] * 320, max_batch_tokens=1024, overhead_tokens=48)

    assert [batch.padded_tokens for batch in batches] == [1024] * 10
