"""What pieces say of a corpus."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sampling.strata import (
    PieceCounts,
    Stratum,
    length_quantiles,
    mean_context,
    tokens_error,
)
from pipelines.source.units import Format, RangeKind, Source, WorkUnit


def units(sizes: list[int], rows: int | None = None) -> list[WorkUnit]:
    return [
        WorkUnit(
            Source(f"/in/{n}", "v", size, Format.JSONL), RangeKind.BYTES, 0, size, rows, 0, size
        )
        for n, size in enumerate(sizes)
    ]


def piece(lengths: list[int], *, stored_bytes: int = 100, rows: int | None = None, every: int = 1):
    """Return a piece of which every so many-th document was tokenized."""
    documents = len(lengths) * every
    return PieceCounts(
        stored_bytes=stored_bytes,
        rows=documents if rows is None else rows,
        documents=documents,
        sampled=len(lengths),
        lengths=np.array(lengths, np.int32),
        truncated=sum(length >= 512 for length in lengths),
    )


def test_a_tenth_of_the_bytes_stands_for_ten_times_as_much():
    stratum = Stratum(units([600, 400]), False, [piece([10, 30, 512], stored_bytes=100)])
    assert stratum.rows == 30
    assert stratum.documents == 30
    assert stratum.tokens == pytest.approx(5520)
    assert stratum.truncated == pytest.approx(10)


def test_rows_that_the_format_says_are_not_estimated():
    stratum = Stratum(units([600, 400], rows=500), False, [piece([10, 20], stored_bytes=7)])
    assert stratum.rows == 1000
    assert stratum.tokens == pytest.approx(15_000)


def test_rejected_rows_are_not_documents():
    stratum = Stratum(units([100]), True, [piece([10, 20], rows=4)])
    assert stratum.rows == 4
    assert stratum.documents == 2


def test_a_piece_of_which_less_was_tokenized_counts_as_much():
    halved = Stratum(units([200]), True, [piece([10, 10]), piece([40], every=2)])
    assert halved.tokens == pytest.approx(100)
    assert length_quantiles([halved]) == {"mean": 25, "p50": 10, "p90": 40, "p99": 40, "max": 40}


def test_a_stratum_of_more_rows_weighs_more():
    many = Stratum(units([9900]), False, [piece([10], stored_bytes=100)])
    few = Stratum(units([100]), True, [piece([90], stored_bytes=100)])
    assert length_quantiles([many, few])["mean"] == 11
    assert length_quantiles([many, few])["p90"] == 10


def test_a_token_stands_in_a_longer_text_than_a_document_is_on_average():
    stratum = Stratum(units([100]), True, [piece([10, 90])])
    assert mean_context([stratum]) == pytest.approx((10 * 10 + 90 * 90) / 100)


@given(st.lists(st.lists(st.integers(1, 512), min_size=1), min_size=1, max_size=8))
def test_a_corpus_that_was_counted_whole_has_no_error(pieces: list[list[int]]):
    stratum = Stratum(units([100] * len(pieces)), True, [piece(lengths) for lengths in pieces])
    assert stratum.tokens == pytest.approx(sum(map(sum, pieces)))
    assert tokens_error([stratum]) == 0


def test_pieces_that_are_alike_leave_less_doubt_than_pieces_that_differ():
    alike = Stratum(units([10_000]), False, [piece([10, 12]), piece([11, 11]), piece([12, 10])])
    unlike = Stratum(units([10_000]), False, [piece([1, 1]), piece([11, 11]), piece([21, 21])])
    assert tokens_error([alike]) == 0
    assert tokens_error([unlike]) > 0.5


def test_one_piece_of_many_cannot_tell_its_error():
    assert math.isnan(tokens_error([Stratum(units([10_000]), False, [piece([10, 12])])]))


def test_two_standard_errors_hold_the_truth_most_of_the_time():
    chooser = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        truth = [chooser.integers(1, 200, 50).tolist() for _ in range(400)]
        read = [truth[n] for n in chooser.choice(400, 16, replace=False)]
        stratum = Stratum(units([100] * 400), False, [piece(lengths) for lengths in read])
        off = abs(stratum.tokens / sum(map(sum, truth)) - 1)
        hits += off <= tokens_error([stratum])
    assert 176 <= hits <= 199
