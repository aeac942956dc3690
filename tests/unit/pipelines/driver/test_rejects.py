"""When so much is rejected that something must be wrong with the files."""

from __future__ import annotations

from pipelines.corpus.index import IndexedShard
from pipelines.driver.rejects import sources_without_rows, too_many_rejected
from support.corpora import a_source, a_unit, an_indexed_shard

A, B, C = (a_unit(a_source(f"/in/{name}")) for name in "abc")


def shard(unit=A, *, rejected: int, documents: int, ordinal: int = 0, **footer) -> IndexedShard:
    row_stop = 2 * ordinal + rejected + documents
    return an_indexed_shard(
        unit, ordinal, rejected=rejected, documents=documents, row_stop=row_stop, **footer
    )


def judged(*shards: IndexedShard, most: float = 0.9) -> str:
    return str(too_many_rejected(shards, most=most, rejects="/out/_rejects") or "")


def test_a_source_is_named_if_rows_of_it_were_rejected_and_none_embedded():
    nothing, all_bad = shard(A, rejected=0, documents=0), shard(B, rejected=2, documents=0)
    assert sources_without_rows([nothing, all_bad]) == ["/in/b"]


def test_one_embedded_row_in_any_shard_is_enough():
    first = shard(A, rejected=2, documents=0)
    assert sources_without_rows([first, shard(A, rejected=1, documents=1, ordinal=1)]) == []


def test_a_file_that_could_not_be_read_from_its_first_row_on_gave_nothing():
    assert sources_without_rows([shard(A, rejected=0, documents=0, unreadable=1)]) == ["/in/a"]


def test_a_run_may_reject_the_share_that_it_is_allowed_and_no_more():
    shards = [shard(A, rejected=900, documents=100)]
    assert judged(*shards) == ""
    assert judged(*shards, most=0.89).startswith(
        "run run-1 rejected 900 of 1,000 rows, --max-rejected allows 89%: most of them in /in/a, "
        f"for the reasons in /out/_rejects/{shards[0].name}."
    )


def test_with_one_allowed_all_rows_may_be_rejected_and_with_zero_none():
    assert judged(shard(A, rejected=200, documents=0), most=1) == ""
    assert judged(shard(A, rejected=1, documents=999), most=0) != ""
    assert judged(shard(A, rejected=0, documents=999), most=0) == ""


def test_a_night_that_rejected_everything_is_not_lost_in_a_large_corpus():
    corpus = shard(A, rejected=0, documents=1_000_000, run_id="first")
    assert "run tonight rejected 500 of 500" in judged(
        corpus, shard(B, rejected=500, documents=0, run_id="tonight")
    )


def test_of_several_such_runs_the_worst_is_told_and_of_its_sources_the_worst():
    told = judged(
        shard(A, rejected=500, documents=0, run_id="monday"),
        shard(B, rejected=300, documents=0, run_id="tuesday"),
        shard(C, rejected=400, documents=0, run_id="tuesday"),
    )
    assert "run tuesday rejected 700 of 700 rows (and 1 more runs likewise)" in told
    assert "most of them in /in/c, " in told


def test_of_fewer_than_a_hundred_rows_the_share_says_nothing():
    """Tonight one document came, and it is empty."""
    corpus = shard(A, rejected=0, documents=1_000_000, run_id="first")
    tonight = {"documents": 0, "run_id": "tonight"}
    assert judged(corpus, shard(B, rejected=99, **tonight)) == ""
    assert judged(corpus, shard(B, rejected=100, **tonight)) != ""


def test_a_file_that_could_not_be_read_counts_as_a_row():
    units = [a_unit(a_source(f"/in/{number}")) for number in range(100)]
    nothing = [shard(unit, rejected=0, documents=0, unreadable=1) for unit in units]
    assert judged(*nothing).startswith("run run-1 rejected 100 of 100 rows")
    assert judged(*nothing, shard(A, rejected=0, documents=12)) == ""
