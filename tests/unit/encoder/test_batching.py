from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.batching import bucket_length, padding_waste, plan_batches

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
    assert len({(len(batch.indices), batch.padded_length) for batch in batches}) <= 130


def test_padding_waste_of_like_lengths_is_small() -> None:
    lengths = np.random.default_rng(0).integers(3, 513, 2_000)

    batches = plan_batches(lengths, max_batch_tokens=1024, max_seq_length=512)

    assert 0 < padding_waste(lengths, batches) < 0.03


def test_padding_waste_is_the_share_of_computed_tokens() -> None:
    batches = plan_batches([8, 4], max_batch_tokens=100)

    assert padding_waste([8, 4], batches) == pytest.approx(4 / 16)
    assert padding_waste([], []) == 0.0


def test_nothing_to_encode_gives_no_batches() -> None:
    assert plan_batches([], max_batch_tokens=10) == []


short_lengths = st.lists(st.integers(1, 64), max_size=200)
streams = st.integers(1, 16)


@settings(deadline=None)
@given(lengths=lengths, budget=budgets, streams=streams)
def test_texts_of_several_streams_are_each_in_one_batch_within_the_budget(
    lengths: list[int], budget: int, streams: int
) -> None:
    batches = plan_batches(
        lengths, max_batch_tokens=budget, max_seq_length=MAX_SEQ_LENGTH, streams=streams
    )

    indices = [int(index) for batch in batches for index in batch.indices]
    assert sorted(indices) == list(range(len(lengths)))
    for batch in batches:
        assert batch.padded_tokens <= budget or len(batch.indices) == 1


@settings(deadline=None)
@given(streams=streams, more=short_lengths)
def test_no_stream_is_left_without_a_batch(streams: int, more: list[int]) -> None:
    enough = [64] * streams

    batches = plan_batches(enough + more, max_batch_tokens=10**6, streams=streams)

    assert len(batches) >= streams


def test_two_streams_get_half_of_the_texts_each() -> None:
    batches = plan_batches([32] * 16, max_batch_tokens=1024, streams=2)

    assert [len(batch.indices) for batch in batches] == [8, 8]


@settings(deadline=None)
@given(count=st.integers(1, 64), streams=streams)
def test_a_stream_gets_no_less_than_is_worth_a_forward(count: int, streams: int) -> None:
    batches = plan_batches([8] * count, max_batch_tokens=10**6, streams=streams)

    assert all(batch.padded_tokens >= 64 for batch in batches[:-1])


def test_so_few_tokens_that_one_forward_is_faster_are_not_shared_out() -> None:
    assert len(plan_batches([4] * 16, max_batch_tokens=1024, streams=8)) == 1
    assert len(plan_batches([4] * 17, max_batch_tokens=1024, streams=8)) == 2


def test_many_texts_fill_the_budget_however_many_streams_there_are() -> None:
    batches = plan_batches([32] * 320, max_batch_tokens=1024, streams=2)

    assert [batch.padded_tokens for batch in batches] == [1024] * 10
