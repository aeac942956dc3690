"""The end of a run: the index is published before anything is deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from pathlib import Path

import pytest

from encoder.errors import NewerFormatError
from pipelines.corpus.index import INDEX_FILE, IndexedShard, list_shards, read_index
from pipelines.corpus.shards import DATA, REJECTS
from pipelines.driver import id_check, publisher, source_versions
from pipelines.driver.report import RunReport
from pipelines.errors import (
    ConservationError,
    CorpusError,
    DuplicateIdError,
    PruneLimitError,
    TooManyRejectedError,
)
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.units import WorkUnit
from pipelines.storage import Storage
from support.corpora import a_pin, a_source, a_unit, an_indexed_shard, write_shards

A, B = a_unit(a_source("/in/a")), a_unit(a_source("/in/b"))
NEW_A = a_unit(a_source("/in/a", "v2"))


@dataclass
class Output:
    storage: Storage
    operations: list[str] = field(default_factory=list)
    report: RunReport = field(default_factory=lambda: RunReport("run", "f" * 16, "out", 0, 0))

    def publish(
        self,
        units: Sequence[WorkUnit],
        done: Sequence[WorkUnit] = (),
        abandoned: Sequence[WorkUnit] = (),
        inputs: Sequence[str] = ("/in",),
        **settings: object,
    ) -> CorpusError | None:
        run = publisher.Publisher(
            EmbedCorpusSettings(input=tuple(inputs), output=self.storage.uri, **settings),
            self.storage,
            a_pin(),
            {unit.key: unit for unit in units},
            {unit.key for unit in done},
            self.report,
            abandoned={unit.key: unit for unit in abandoned},
        )
        problems = run.publish()
        assert len(problems) <= 1
        return problems[0] if problems else None

    def live(self) -> list[str]:
        index = read_index(self.storage)
        assert index is not None
        return [str(shard.name) for shard in index.shards]


@pytest.fixture
def output(tmp_path, monkeypatch) -> Output:
    """An output folder of which replacements and deletions are recorded."""
    output = Output(Storage(str(tmp_path / "out")))
    for verb in ("replace", "delete"):
        original = getattr(Storage, verb)

        def recorded(self, name, *rest, verb=verb, original=original):
            output.operations.append(f"{verb} {name}")
            return original(self, name, *rest)

        monkeypatch.setattr(Storage, verb, recorded)
    return output


def names(shards: Sequence[IndexedShard]) -> list[str]:
    return sorted(str(shard.name) for shard in shards)


@contextmanager
def killed_at_the_first_deletion(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is done meanwhile dies there, and must come to it."""

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete", crash)
        with pytest.raises(Crash):
            yield


def test_what_was_committed_is_published(output):
    shards = write_shards(output.storage, [an_indexed_shard(A), an_indexed_shard(B)])
    assert output.publish([A, B]) is None
    assert output.live() == names(shards)
    index = read_index(output.storage)
    assert index.ids_checked
    assert index.fingerprint == a_pin().space.fingerprint
    assert index.totals()["size_bytes"] == sum(shard.size_bytes for shard in shards)
    # Once before ids are looked at, which takes long, and once when they are found unique.
    assert output.operations == [f"replace {INDEX_FILE}"] * 2


@pytest.mark.parametrize("folder", [DATA, REJECTS])
def test_what_writers_left_that_were_killed_is_deleted(output, folder):
    write_shards(output.storage, [an_indexed_shard(A)])
    left = Path(output.storage.path(f"{folder}/.{A.key}-00000.parquet.{'0' * 32}.tmp"))
    left.parent.mkdir(exist_ok=True)
    left.touch()
    os.utime(left, (0, 0))
    assert output.publish([A]) is None
    assert not left.exists()


def test_a_run_that_is_killed_while_it_looks_at_ids_has_published(output, monkeypatch):
    shards = write_shards(output.storage, [an_indexed_shard(A)])
    looks = id_check.find_duplicate_ids

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(id_check, "find_duplicate_ids", killed)
        with pytest.raises(KeyboardInterrupt):
            output.publish([A])
    assert output.live() == names(shards)
    assert not read_index(output.storage).ids_checked
    looked: list[object] = []

    def look(*args: object, **keywords: object) -> object:
        looked.append(args)
        return looks(*args, **keywords)

    monkeypatch.setattr(id_check, "find_duplicate_ids", look)
    assert output.publish([A], done=[A]) is None
    assert len(looked) == 1
    assert read_index(output.storage).ids_checked


def test_what_another_job_publishes_while_ids_are_looked_at_stays(output, monkeypatch):
    write_shards(output.storage, [an_indexed_shard(A)])
    theirs: list[bytes] = []

    def slow(*_: object, **__: object) -> list[object]:
        index = read_index(output.storage)
        newer = with_changes(index, shards=(*index.shards, an_indexed_shard(B)))
        theirs.append(newer.to_json().encode())
        output.storage.replace(INDEX_FILE, theirs[0])
        return []

    monkeypatch.setattr(id_check, "find_duplicate_ids", slow)
    assert output.publish([A]) is None
    assert output.storage.read(INDEX_FILE) == theirs[0]


def test_what_another_job_retires_while_ids_are_looked_at_is_not_listed(
    output, monkeypatch, caplog
):
    first, second = write_shards(output.storage, [an_indexed_shard(A), an_indexed_shard(B)])

    def gone(storage: Storage, *_: object, **__: object) -> None:
        storage.delete(f"{DATA}/{second.name}")
        raise FileNotFoundError(second.name)

    monkeypatch.setattr(id_check, "find_duplicate_ids", gone)
    output.publish([A, B])
    assert output.live() == names([first])
    assert not read_index(output.storage).ids_checked
    assert "ids were not compared: another job has retired" in caplog.text


def test_ids_that_cannot_be_looked_at_for_another_reason_are_an_error(output, monkeypatch):
    write_shards(output.storage, [an_indexed_shard(A)])

    def no_temporary_folder(*_: object, **__: object) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(id_check, "find_duplicate_ids", no_temporary_folder)
    with pytest.raises(FileNotFoundError):
        output.publish([A])


def test_for_an_unchanged_index_nothing_is_written_read_or_asked_of_sources(output, monkeypatch):
    write_shards(output.storage, [an_indexed_shard(A), an_indexed_shard(B)])
    output.publish([A, B])
    output.operations.clear()
    monkeypatch.setattr(Storage, "open", lambda *_: pytest.fail("a shard is read"))
    monkeypatch.setattr(source_versions, "_version_now", lambda _: pytest.fail("a source is asked"))
    assert output.publish([A, B], done=[A, B]) is None
    assert output.publish([B], done=[B]) is None, "nor of what another run has embedded"
    assert output.operations == []


def test_the_index_is_published_before_old_shards_are_deleted(output):
    (old,) = write_shards(output.storage, [an_indexed_shard(A)])
    output.publish([A])
    output.storage.create(f"{REJECTS}/{old.name}", b"rejects")
    (new,) = write_shards(output.storage, [an_indexed_shard(NEW_A)])
    output.operations.clear()
    assert output.publish([NEW_A]) is None
    assert output.operations == [
        f"replace {INDEX_FILE}",
        f"delete {REJECTS}/{old.name}",
        f"delete {DATA}/{old.name}",
        f"replace {INDEX_FILE}",  # whose ids are unique
    ]
    assert output.live() == names([new])
    assert output.storage.sizes(REJECTS) == {}
    assert output.report.retired_shards == 1


def test_what_a_crash_left_undeleted_is_deleted_by_the_next_run(output, monkeypatch):
    (old,) = write_shards(output.storage, [an_indexed_shard(A)])
    output.publish([A])
    (new,) = write_shards(output.storage, [an_indexed_shard(NEW_A)])
    with killed_at_the_first_deletion(monkeypatch):
        output.publish([NEW_A])
    # A run over other inputs in between leaves it alone and does not take it for live.
    (other,) = write_shards(output.storage, [an_indexed_shard(B)])
    assert output.publish([B]) is None
    assert output.live() == names([new, other])
    assert output.publish([NEW_A], done=[NEW_A]) is None
    assert old.name not in list_shards(output.storage)
    assert output.live() == names([new, other])


def test_a_source_whose_new_version_is_incomplete_keeps_its_old_one(output):
    (old,) = write_shards(output.storage, [an_indexed_shard(A)])
    output.publish([A])
    write_shards(output.storage, [an_indexed_shard(NEW_A, last=False)])
    output.report.failures = {NEW_A.label: "its worker died"}
    assert output.publish([NEW_A]) is None
    assert output.live() == names([old])
    assert old.name in list_shards(output.storage)


def test_a_shard_that_was_deleted_and_embedded_again_is_listed_with_its_new_footer(output):
    (first,) = write_shards(output.storage, [an_indexed_shard(A)])
    output.publish([A])
    output.storage.delete(f"{DATA}/{first.name}")
    write_shards(output.storage, [an_indexed_shard(A, run_id="run-2")])
    assert output.publish([A], done=[]) is None
    assert [shard.footer.run_id for shard in read_index(output.storage).shards] == ["run-2"]


def test_duplicate_ids_are_an_error_after_everything_was_published(output):
    write_shards(output.storage, [an_indexed_shard(A)])
    write_shards(output.storage, [an_indexed_shard(B)], ids_of=A.key)
    error = output.publish([A, B])
    assert isinstance(error, DuplicateIdError)
    assert str(error) == (
        f"ids are not unique: '{A.key}-0' occurs in shards {' and '.join(output.live())}, and 1 "
        "more ids or so; all rows are written. Make --id-column unique in the source and run "
        "again, or pass --no-check-ids"
    )
    assert len(output.live()) == 2
    assert not read_index(output.storage).ids_checked


def test_for_ids_that_may_have_moved_from_a_file_that_is_gone_a_prune_is_advised(output):
    write_shards(output.storage, [an_indexed_shard(A)])
    write_shards(output.storage, [an_indexed_shard(B)], ids_of=A.key)
    assert "1 sources are gone but live (/in/a): if their rows have moved, --prune" in str(
        output.publish([B])
    )


def test_duplicate_ids_are_reported_by_every_run_until_they_are_gone(output):
    write_shards(output.storage, [an_indexed_shard(A)])
    write_shards(output.storage, [an_indexed_shard(B)], ids_of=A.key)
    output.publish([A, B])
    assert isinstance(output.publish([A, B], done=[A, B]), DuplicateIdError)
    assert output.publish([A, B], done=[A, B], check_ids=False) is None


@pytest.mark.parametrize("first_checked", [True, False])
def test_ids_are_looked_at_again_only_after_a_change_or_when_they_were_not(
    output, monkeypatch, first_checked
):
    looked: list[int] = []
    find = id_check.find_duplicate_ids

    def counted(*arguments, **named):
        looked.append(1)
        return find(*arguments, **named)

    monkeypatch.setattr(id_check, "find_duplicate_ids", counted)
    write_shards(output.storage, [an_indexed_shard(A)])
    output.publish([A], check_ids=first_checked)
    output.publish([A], done=[A])
    assert len(looked) == 1
    output.publish([A], done=[A])
    assert len(looked) == 1
    write_shards(output.storage, [an_indexed_shard(B)])
    output.publish([A, B], done=[A])
    assert len(looked) == 2


def test_rows_that_are_not_accounted_for_are_an_error_after_publishing(output):
    write_shards(output.storage, [an_indexed_shard(A, rejected=1)])
    error = output.publish([A])
    assert isinstance(error, ConservationError)
    assert "2 source rows, but 2 embedded and 1 rejected" in str(error)
    assert len(output.live()) == 1


def all_rejected(unit: WorkUnit) -> IndexedShard:
    return an_indexed_shard(unit, documents=0, rows=0, rejected=200, row_stop=200)


def test_a_file_whose_every_row_is_rejected_is_told_by_each_run_until_it_changes(output, caplog):
    """The retry of the run that rejected them finds nothing to do, and would be a success."""
    write_shards(output.storage, [all_rejected(A)])
    for done in ([], [A]):
        caplog.clear()
        error = output.publish([A], done=done)
        assert isinstance(error, TooManyRejectedError)
        assert output.report.sources_all_rejected == 1
        assert "every row was rejected of 1 sources: /in/a; " in caplog.text
    write_shards(output.storage, [an_indexed_shard(NEW_A)])
    assert output.publish([NEW_A]) is None
    assert output.report.sources_all_rejected == 0


def test_rows_that_were_rejected_of_other_inputs_are_not_this_runs_affair(output, caplog):
    write_shards(output.storage, [all_rejected(A), an_indexed_shard(B)])
    assert output.publish([B]) is None
    assert "every row was rejected" not in caplog.text


def test_of_many_sources_without_a_row_the_first_are_named_and_the_others_counted(output, caplog):
    units = [a_unit(a_source(f"/in/{n:02}")) for n in range(12)]
    write_shards(output.storage, [all_rejected(unit) for unit in units])
    assert output.publish(units, max_rejected=1) is None
    assert "rejected of 12 sources: /in/00, " in caplog.text
    assert ", /in/09 and 2 more; " in caplog.text


def test_a_unit_that_knows_its_rows_must_have_just_as_many(output):
    unit = with_changes(A, rows=3)
    write_shards(output.storage, [an_indexed_shard(unit)])
    assert isinstance(output.publish([unit]), ConservationError)


def test_gone_sources_are_counted_and_pruned_when_asked(output):
    (gone, kept) = write_shards(output.storage, [an_indexed_shard(A), an_indexed_shard(B)])
    assert output.publish([B]) is None
    assert output.report.sources_gone == 1
    refused = output.publish([B], done=[B], prune=True)
    assert isinstance(refused, PruneLimitError)
    assert len(output.live()) == 2
    assert output.publish([B], done=[B], prune=True, prune_max=0.5) is None
    assert output.live() == names([kept])
    assert gone.name not in list_shards(output.storage)


@pytest.fixture(params=["first-run", "listed-before", "listed-in-part"])
def gone_in_the_middle(request, output) -> IndexedShard:
    """What is committed of A, which goes before all of it is; B is whole."""
    kept, part = an_indexed_shard(B), an_indexed_shard(A, last=False)
    write_shards(output.storage, [kept])
    if request.param == "listed-before":
        output.publish([B])
    write_shards(output.storage, [part])
    if request.param == "listed-in-part":
        output.report.failures = {A.label: "its store was gone"}
        output.publish([A, B])
        output.report.failures = {}
    return part


def test_a_source_that_goes_when_a_part_of_it_is_committed_leaves_a_corpus_that_is_whole(
    output, gone_in_the_middle
):
    assert output.publish([B], done=[B], abandoned=[A]) is None
    assert output.live() == names([an_indexed_shard(B)])
    assert set(map(str, list_shards(output.storage))) == set(output.live())
    assert (output.report.retired_shards, output.report.sources_gone) == (1, 0)


def test_its_older_version_stays_until_it_is_pruned(output):
    (old,) = write_shards(output.storage, [an_indexed_shard(A)])
    output.publish([A])
    write_shards(output.storage, [an_indexed_shard(NEW_A, last=False), an_indexed_shard(B)])
    assert output.publish([B], abandoned=[NEW_A]) is None
    assert output.live() == names([old, an_indexed_shard(B)])
    assert len(list_shards(output.storage)) == 2
    assert output.report.sources_gone == 1


def test_a_source_that_goes_when_another_job_has_committed_all_of_it_is_whole(output):
    write_shards(output.storage, [an_indexed_shard(A), an_indexed_shard(B)])
    assert output.publish([B], abandoned=[A]) is None
    assert len(output.live()) == 2


def test_sources_are_gone_of_an_input_all_of_whose_files_another_input_holds_too(output):
    below = a_unit(a_source("/in/below/b", root="/in/below"))
    (_, kept) = write_shards(output.storage, [an_indexed_shard(A), an_indexed_shard(below)])
    inputs = ["/in/below", "/in/"]
    assert output.publish([below], inputs=inputs) is None
    assert output.report.sources_gone == 1
    assert output.publish([below], done=[below], inputs=inputs, prune=True, prune_max=0.5) is None
    assert output.live() == names([kept])


def test_a_prune_that_was_killed_before_it_deleted_is_not_undone_by_a_run_that_prunes_nothing(
    output, monkeypatch
):
    (gone, kept) = write_shards(output.storage, [an_indexed_shard(A), an_indexed_shard(B)])
    with killed_at_the_first_deletion(monkeypatch):
        output.publish([B], prune=True, prune_max=1)
    assert output.publish([B], done=[B]) is None
    assert output.live() == names([kept])
    assert gone.name in list_shards(output.storage)
    assert output.publish([B], done=[B], prune=True, prune_max=1) is None
    assert gone.name not in list_shards(output.storage)


def test_a_source_that_has_another_name_now_is_pruned_under_its_old_one(output, tmp_path):
    """A link's name, before the file had one of its own below the input."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b").touch()
    (tmp_path / "in" / "a").symlink_to("b")
    old, own = (a_unit(a_source(f"{tmp_path}/in/{n}", "v1", f"{tmp_path}/in")) for n in "ab")
    (_, kept) = write_shards(output.storage, [an_indexed_shard(old), an_indexed_shard(own)])
    inputs = [f"{tmp_path}/in"]
    assert output.publish([own], inputs=inputs, prune=True, prune_max=1) is None
    assert output.live() == names([kept])


def test_a_shard_of_the_output_is_no_source_and_is_pruned_though_it_is_there(output):
    """Where the output lies below an input, and shards were read as one before."""
    (kept,) = write_shards(output.storage, [an_indexed_shard(B)])
    source = a_source(output.storage.below(f"{DATA}/{kept.name}"), "v1", "/in")
    write_shards(output.storage, [an_indexed_shard(a_unit(source))])
    assert output.publish([B], prune=True, prune_max=1) is None
    assert output.live() == names([kept])


def test_what_another_job_has_committed_of_a_new_file_is_live_before_any_index_lists_it(
    output, monkeypatch
):
    (mine,) = write_shards(output.storage, [an_indexed_shard(B)])
    output.publish([B])
    (fresh,) = write_shards(output.storage, [an_indexed_shard(A)])
    monkeypatch.setattr(source_versions, "_version_now", {A.source.uri: "v1"}.get)
    assert output.publish([B], done=[B]) is None
    assert output.live() == names([mine, fresh])


def test_a_prune_leaves_what_came_after_the_plan_and_another_job_has_published(output, monkeypatch):
    both = write_shards(output.storage, [an_indexed_shard(A), an_indexed_shard(B)])
    output.publish([A, B])
    monkeypatch.setattr(source_versions, "_version_now", {A.source.uri: "v1"}.get)
    assert output.publish([B], done=[B], prune=True, prune_max=1) is None
    assert output.live() == names(both)


def test_shards_that_another_job_commits_while_we_publish_are_listed_too(output, monkeypatch):
    mine = write_shards(output.storage, [an_indexed_shard(A)])
    theirs = []
    original = publisher.collect_shards

    def slow_look(*args, **keywords):
        if not theirs:
            theirs.extend(write_shards(output.storage, [an_indexed_shard(B)]))
        return original(*args, **keywords)

    monkeypatch.setattr(publisher, "collect_shards", slow_look)
    assert output.publish([A, B]) is None
    assert output.live() == names([*mine, *theirs])


@pytest.fixture
def other_job(output, monkeypatch):
    """Commits a shard of B beside each of the first indexes that are written, and counts them."""
    written: list[IndexedShard] = []
    replace = Storage.replace

    def beside(self, name, data):
        if name == INDEX_FILE and len(written) < 5:
            written.extend(write_shards(output.storage, [an_indexed_shard(B, len(written))]))
        return replace(self, name, data)

    monkeypatch.setattr(Storage, "replace", beside)
    monkeypatch.setattr(source_versions, "_version_now", {B.source.uri: "v1"}.get)
    return written


def test_an_index_is_written_until_another_job_commits_nothing_meanwhile(output, other_job):
    mine = write_shards(output.storage, [an_indexed_shard(A)])
    assert output.publish([A], check_ids=False) is None
    assert len(other_job) == 5
    assert output.live() == names([*mine, *other_job])


def test_beside_a_job_that_commits_all_the_time_a_run_ends_all_the_same(
    output, other_job, monkeypatch, caplog
):
    monkeypatch.setattr(publisher, "_SETTLES_WITHIN_S", -1.0)
    mine = write_shards(output.storage, [an_indexed_shard(A)])
    assert output.publish([A], check_ids=False) is None
    assert output.live() == names(mine)
    assert "another job has committed or retired shards all the while" in caplog.text


def test_a_footer_is_read_once_however_often_the_listing_changes(output, other_job, monkeypatch):
    write_shards(output.storage, [an_indexed_shard(A)])
    opened: list[str] = []
    original = Storage.open

    def recorded(self, name, *rest):
        opened.append(name)
        return original(self, name, *rest)

    monkeypatch.setattr(Storage, "open", recorded)
    output.publish([A], check_ids=False)
    assert len(opened) == len(set(opened)) == 6


def test_a_damaged_index_is_rebuilt_from_the_shards(output, caplog):
    shards = write_shards(output.storage, [an_indexed_shard(A)])
    output.storage.replace(INDEX_FILE, b"{ not json")
    assert output.publish([A]) is None
    assert output.live() == names(shards)
    assert "it is rebuilt from the shards" in caplog.text


def test_an_index_of_a_newer_twofold_is_not_replaced(output):
    write_shards(output.storage, [an_indexed_shard(A)])
    output.storage.replace(INDEX_FILE, b'{"format": 2}')
    with pytest.raises(NewerFormatError, match="upgrade"):
        output.publish([A])
    assert output.storage.read(INDEX_FILE) == b'{"format": 2}'


def test_rejects_of_a_try_that_died_go_where_the_committed_one_rejected_nothing(output):
    (shard,) = write_shards(output.storage, [an_indexed_shard(A)])
    output.storage.create(f"{REJECTS}/{shard.name}", b"of the try that died")
    assert output.publish([A]) is None
    assert output.storage.sizes(REJECTS) == {}


def test_a_shard_whose_event_was_lost_counts_in_the_report(output):
    (shard,) = write_shards(output.storage, [an_indexed_shard(A)])
    output.report.run_id = shard.footer.run_id
    output.publish([A])
    assert output.report.shards == 1
    assert output.report.rows == shard.footer.rows


def test_a_planned_unit_that_is_not_complete_though_nothing_failed_is_an_error(output, monkeypatch):
    write_shards(output.storage, [an_indexed_shard(A)])
    monkeypatch.setattr(source_versions, "_version_now", {B.source.uri: "v1"}.get)
    error = output.publish([A, B])
    assert isinstance(error, ConservationError)
    assert B.label in str(error)


def test_what_another_job_has_pruned_since_the_plan_is_gone_and_not_lost(output):
    write_shards(output.storage, [an_indexed_shard(A)])
    assert output.publish([A, B], done=[A, B]) is None


def test_shards_of_a_version_newer_than_the_plan_are_another_jobs_and_stay(output, monkeypatch):
    (ours,) = write_shards(output.storage, [an_indexed_shard(A)])
    (theirs,) = write_shards(output.storage, [an_indexed_shard(NEW_A, last=False)])
    monkeypatch.setattr(source_versions, "current_version", lambda uri: ("v2", 100))
    assert output.publish([A]) is None
    assert output.live() == names([ours])
    assert theirs.name in list_shards(output.storage)


def test_a_newer_version_that_is_published_already_stays_live(output, monkeypatch):
    (theirs,) = write_shards(output.storage, [an_indexed_shard(NEW_A)])
    output.publish([NEW_A])
    monkeypatch.setattr(source_versions, "current_version", lambda uri: ("v2", 100))
    assert output.publish([A]) is None
    assert output.live() == names([theirs])
