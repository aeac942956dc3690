"""Rows in are rows out plus rows rejected, or it is said where they are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.corpus.conservation import conservation_problems
from pipelines.corpus.index import IndexedShard
from support.corpora import a_source, a_unit, an_indexed_shard

UNIT = a_unit()


def three(**changes_of_the_second: int) -> list[IndexedShard]:
    """Return three shards of two rows each."""
    return [
        an_indexed_shard(UNIT, 0, last=False),
        an_indexed_shard(UNIT, 1, last=False, **changes_of_the_second),
        an_indexed_shard(UNIT, 2),
    ]


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"documents": 1, "rejected": 1, "rows": 1},
        {"documents": 0, "rejected": 2, "rows": 0},
        {"rows": 9},
        {"unreadable": 1},
    ],
)
def test_rows_that_are_embedded_or_rejected_add_up(fine):
    assert conservation_problems(three(**fine)) == []
    assert conservation_problems(reversed(three(**fine)), [replace(UNIT, rows=6)]) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"documents": 1}, ["2 source rows, but 1 embedded and 0 rejected"]),
        ({"rejected": 1}, ["2 source rows, but 2 embedded and 1 rejected"]),
        ({"rows": 1}, ["1 rows for 2 documents"]),
        ({"row_start": 3}, ["begins at source row 3, expected 2", "1 source rows, but 2 embedded"]),
        ({"row_stop": 5}, ["3 source rows, but 2 embedded", "begins at source row 4, expected 5"]),
    ],
)
def test_what_does_not_add_up_is_named(wrong, said):
    problems = conservation_problems(three(**wrong))
    assert len(problems) == len(said)
    for problem, words in zip(problems, said, strict=True):
        assert words in problem
        assert UNIT.key in problem


def test_a_shard_that_is_missing_in_the_middle_is_named():
    first, _, third = three()
    assert conservation_problems([first, third]) == [
        f"{third.name}: shard 1 of its unit is missing"
    ]


def test_a_unit_without_its_end_is_no_problem_of_rows():
    assert conservation_problems(three()[:2], [replace(UNIT, rows=6)]) == []


def test_a_complete_unit_must_account_for_all_rows_of_its_range():
    (problem,) = conservation_problems(three(), [replace(UNIT, rows=7)])
    assert "the source has 7 rows, its shards account for 6" in problem
    assert UNIT.label in problem


def test_a_file_whose_rest_is_unreadable_has_no_known_number_of_rows():
    assert conservation_problems(three(unreadable=1), [replace(UNIT, rows=7)]) == []


def test_units_are_judged_apart():
    other = an_indexed_shard(a_unit(a_source("/in/b")), rejected=5)
    (problem,) = conservation_problems([*three(), other])
    assert problem.startswith(str(other.name))
