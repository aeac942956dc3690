"""The account of a run adds up from its events."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from pipelines.actor.events import Ending, ShardEvent, UnitEvent
from pipelines.corpus.shards import REUSED_ROWS, REUSED_TOKENS
from pipelines.driver.report import RunReport, installed_versions
from support.corpora import a_footer, a_source, a_unit, an_indexed_shard


def a_report(**fields: object) -> RunReport:
    return RunReport("run-1", "f" * 16, "s3://b/out", 5, 2, **fields)


def a_shard(
    *, duplicate: bool = False, committed_at: float = 100.0, **footer: object
) -> ShardEvent:
    return ShardEvent(
        unit="a" * 32,
        name="x",
        size_bytes=1000,
        footer=a_footer(**footer),
        duplicate=duplicate,
        seconds={"encode": 1.5, "write": 0.25},
        committed_at=committed_at,
        peak_rss_bytes=7,
    )


def shown(report: RunReport) -> str:
    screen = io.StringIO()
    Console(file=screen, width=200).print(report.table())
    return screen.getvalue()


def test_shards_are_summed_up():
    report = a_report()
    report.add(a_shard(rejected=1, documents=1, rows=4, truncated=1, unreadable=1))
    report.add(a_shard(tokens=20, padded_tokens=20))
    report.add(UnitEvent("a" * 32, Ending.DONE, seconds={"write_wait": 0.25}))
    found = report.to_dict()
    assert {name: found[name] for name in ("shards", "source_rows", "documents", "rows")} == {
        "shards": 2,
        "source_rows": 4,
        "documents": 3,
        "rows": 6,
    }
    assert (found["rejected"], found["unreadable"], found["truncated"]) == (1, 1, 1)
    assert (found["tokens"], found["padded_tokens"], found["size_bytes"]) == (30, 32, 2000)
    assert found["padding_waste"] == pytest.approx(1 - 30 / 32, abs=1e-5)
    assert found["seconds_by_stage"] == {"encode": 3.0, "write": 0.5, "write_wait": 0.25}
    assert found["peak_rss_bytes"] == 7
    assert found["provenance"] == {"model": "fake"}


def test_what_was_reused_is_told_and_is_not_taken_for_the_encoders_work():
    report = a_report()
    made_by = {"model": "fake", REUSED_ROWS: "3", REUSED_TOKENS: "24"}
    report.add(a_shard(rows=4, tokens=30, padded_tokens=8, provenance=made_by))
    found = report.to_dict()
    assert (found["tokens"], found["reused_rows"], found["reused_tokens"]) == (30, 3, 24)
    assert found["padding_waste"] == pytest.approx(1 - 6 / 8)
    assert found["encode_tokens_per_s"] == 6 / 1.5
    assert found["provenance"] == {"model": "fake"}
    assert re.search(r"vectors reused\s+\S\s+3 ", shown(report))
    assert "vectors reused" not in shown(a_report())


@pytest.mark.parametrize("times", [(90.0, 95.0, 100.0), (100.0, 95.0, 90.0)])
def test_the_first_and_the_last_commit_are_those_in_whatever_order_they_are_heard_of(times):
    report = a_report()
    for committed_at in times:
        report.add(a_shard(committed_at=committed_at))
    assert (report.first_commit_at, report.last_commit_at) == (90.0, 100.0)


def test_a_shard_whose_event_was_lost_is_counted_once_and_that_of_another_run_never():
    heard, lost, again, earlier = (
        an_indexed_shard(a_unit(a_source("/in/a")), ordinal, run_id=run_id)
        for ordinal, run_id in enumerate(["run-1", "run-1", "run-1", "run-0"])
    )
    report = a_report()
    report.add(replace(a_shard(), name=str(heard.name), footer=heard.footer))
    report.complete([heard, lost, earlier])
    report.complete([heard, lost, again, earlier])
    assert (report.shards, report.source_rows) == (3, 3 * heard.source_rows)


def test_rejects_are_counted_by_their_reason_and_the_table_says_where_they_are():
    report = a_report()
    report.add(replace(a_shard(rejected=3), reasons={"text is null": 1, "text is missing": 2}))
    report.add(replace(a_shard(rejected=1), reasons={"text is null": 2}))
    report.add(replace(a_shard(duplicate=True), reasons={"text is null": 9}))
    assert report.to_dict()["rejected_by_reason"] == {"text is null": 3, "text is missing": 2}
    table = " ".join(shown(report).replace("│", " ").split())
    assert "rejected because text is null (3), text is missing (2)" in table
    assert "rejects s3://b/out/_rejects/" in table
    assert "rejects" not in shown(a_report())


def test_reasons_that_are_many_are_counted_together():
    """The model may raise something else for every text."""
    report = a_report()
    report.add(replace(a_shard(), reasons={f"the model raised {n}": 1 for n in range(60)}))
    report.add(replace(a_shard(), reasons={"the model raised 0": 4}))
    assert len(report.rejected_by_reason) == 51
    assert report.rejected_by_reason["other reasons"] == 10
    assert report.rejected_by_reason["the model raised 0"] == 5


def test_what_another_job_committed_first_is_its_and_only_its_time_is_ours():
    report = a_report()
    report.add(a_shard(duplicate=True))
    assert (report.shards, report.duplicate_shards, report.rows, report.tokens) == (0, 1, 0, 0)
    assert report.seconds_by_stage == {"encode": 1.5, "write": 0.25}
    assert "computed twice" in shown(report)


def test_rates_are_over_the_whole_run():
    report = a_report(started_at=100.0, finished_at=104.0)
    report.add(a_shard())
    found = report.to_dict()
    assert (found["wall_s"], found["documents_per_s"], found["tokens_per_s"]) == (4.0, 0.5, 2.5)


def test_what_an_actor_encodes_in_a_second_knows_no_start_and_no_other_actor():
    assert a_report().to_dict()["encode_tokens_per_s"] is None
    report = a_report(started_at=100.0, finished_at=1_000.0)
    report.add(a_shard())
    report.add(a_shard())
    found = report.to_dict()
    assert found["encode_tokens_per_s"] == round(found["tokens"] / 3.0, 1)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # Reading and tokenizing overlap with the forward: how long they took says nothing.
        ({"wait": 2, "encode": 97, "write_wait": 1, "read": 500, "tokenize": 900}, "forward (97%)"),
        # So does writing, behind it.
        ({"wait": 50, "encode": 20, "write": 60}, "reading and tokenizing (71%)"),
        ({"wait": 3, "encode": 1}, "reading and tokenizing (75%)"),
        ({"wait": 1, "encode": 1, "write": 5, "write_wait": 2}, "writing (50%)"),
        ({"wait": 1, "encode": 1, "reuse": 2}, "finding vectors of unchanged texts (50%)"),
    ],
)
def test_the_stage_that_limits_the_run_is_named_with_its_share(seconds, expected):
    report = a_report(seconds_by_stage=seconds)
    assert report.to_dict()["limited_by"] == expected
    assert f"limited by {expected}" in " ".join(shown(report).replace("│", " ").split())


def test_nothing_limits_a_run_that_did_nothing():
    assert a_report().to_dict()["limited_by"] == ""
    assert "limited by" not in shown(a_report())


def test_a_run_that_did_nothing_has_a_report_too():
    report = a_report()
    assert report.padding_waste == 0
    assert json.loads(report.to_json())["documents_per_s"] == 0
    assert "2 of 5" in shown(report)


def test_the_file_is_json_and_names_the_versions():
    report = a_report(failures={"a": "why"})
    found = json.loads(report.to_json())
    assert found["failures"] == {"a": "why"}
    assert found["versions"] == installed_versions()
    assert {"python", "ray", "torch", "pyarrow"} <= set(found["versions"])


def test_the_table_shows_what_there_is_and_leaves_out_what_there_is_not():
    quiet = shown(a_report())
    assert "rows in" in quiet
    loud = shown(
        a_report(
            failures={"a": "why"},
            retired_shards=3,
            sources_gone=4,
            sources_all_rejected=6,
            duplicate_shards=7,
            unreadable=5,
            rows=1234,
        )
    )
    for name in (
        *("units failed", "shards retired", "sources gone", "sources all rejected"),
        *("files unreadable", "computed twice", "rejects", "1,234"),
    ):
        assert name not in quiet
        assert name in loud
