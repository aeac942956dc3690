"""What a plan says of an output: which units are complete, and whether any has begun."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoder.errors import InvalidInputError
from encoder.model import reference
from encoder.settings import EncoderSettings
from pipelines.corpus.pin import pin_output
from pipelines.corpus.shards import ShardName
from pipelines.driver.corpus_plan import Plan, pin_plan, plan_again, plan_corpus
from pipelines.errors import LayoutMismatchError
from pipelines.settings import EmbedCorpusSettings, OnLong
from pipelines.storage import Storage


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> EmbedCorpusSettings:
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / f"in/{name}.jsonl").write_text('{"id": "1", "text": "a"}\n')
    return EmbedCorpusSettings(
        input=(str(tmp_path / "in"),),
        output=str(tmp_path / "out"),
        encoder=EncoderSettings(model=str(tiny_model)),
    )


def plan_beside(settings: EmbedCorpusSettings, *shards: ShardName) -> Plan:
    """Plan a run into an output that holds these shards."""
    storage = Storage(settings.output)
    pin_output(storage, plan_corpus(settings, storage).pin)
    folder = Path(settings.output) / "data"
    folder.mkdir()
    for shard in shards:
        (folder / str(shard)).write_bytes(b"")
    return plan_corpus(settings, storage)


def unit_keys(settings: EmbedCorpusSettings) -> list[str]:
    return list(plan_corpus(settings, Storage(settings.output)).units)


def test_an_empty_output_has_nothing(settings):
    plan = plan_beside(settings)
    assert (len(plan.todo), plan.done, plan.has_shards) == (2, frozenset(), False)


def test_a_unit_of_which_a_part_is_committed_is_to_be_done_but_has_begun(settings):
    first, _ = unit_keys(settings)
    plan = plan_beside(settings, ShardName(first, 0, last=False))
    assert (len(plan.todo), plan.done, plan.has_shards) == (2, frozenset(), True)


def test_a_unit_is_done_with_its_last_shard(settings):
    first, second = unit_keys(settings)
    plan = plan_beside(settings, ShardName(first, 0, last=True))
    assert (list(plan.todo), plan.done, plan.has_shards) == ([second], {first}, True)


def test_a_plan_tells_how_much_there_is_and_how_much_is_left(settings):
    table = pa.table({"id": ["1", "2", "3"], "text": ["a", "b", "c"]})
    known = Path(settings.input[0]) / "c.parquet"
    pq.write_table(table, known)
    told = dict(plan_beside(settings, ShardName(unit_keys(settings)[0], 0, last=True)).lines())
    assert (told["files"], told["work units"]) == ("3", "3")
    assert (told["units done"], told["units to do"]) == ("1", "2")
    assert told["rows"] == "3 and those of 2 units not known before they are read"
    alone = settings.model_copy(update={"input": (str(known),)})
    assert dict(plan_corpus(alone, Storage(settings.output)).lines())["rows"] == "3"


@pytest.mark.parametrize(
    ("on_long", "overlap", "is_refused"),
    [(OnLong.CHUNK, 64, False), (OnLong.CHUNK, 65, True), (OnLong.TRUNCATE, 65, False)],
)
def test_chunks_may_share_half_of_what_the_model_reads_and_no_more(
    settings, on_long, overlap, is_refused
):
    settings = settings.model_copy(update={"on_long": on_long, "chunk_overlap": overlap})
    refusal = pytest.raises(InvalidInputError, match=r"--chunk-overlap 65 .* \(128\)")
    with refusal if is_refused else nullcontext():
        plan_corpus(settings, Storage(settings.output))


def test_what_is_left_of_other_sources_has_begun_nothing(settings):
    plan = plan_beside(settings, ShardName("0" * 32, 0, last=True))
    assert (len(plan.todo), plan.done, plan.has_shards) == (2, frozenset(), False)


@pytest.mark.parametrize(
    ("first", "then"),
    [("", '{"id": 7, "text": "a"}\n'), ('{"id": 7, "text": "a"}\n', '{"id": "7", "text": "a"}\n')],
)
def test_a_type_that_no_row_of_the_inputs_has_is_refused_and_not_every_row(settings, first, then):
    folder = Path(settings.input[0])
    for name in "ab":
        (folder / f"{name}.jsonl").write_text(first)
    plan_beside(settings)
    for name in "ab":
        (folder / f"{name}.jsonl").write_text(then)

    with pytest.raises(LayoutMismatchError, match=r"'id' is (int64|string) in .*/a\.jsonl and"):
        plan_corpus(settings, Storage(settings.output))


def test_a_column_that_no_type_holds_is_refused_unless_the_output_has_one(settings):
    first = Path(settings.input[0]) / "a.jsonl"
    carrying = settings.model_copy(update={"columns": ("x",)})
    first.write_text('{"id": "1", "text": "a", "x": {}}\n')
    with pytest.raises(InvalidInputError, match=r"one type in column 'x', found \{\} and 0 more"):
        plan_corpus(carrying, Storage(settings.output))

    first.write_text('{"id": "1", "text": "a", "x": {"k": 1}}\n')
    plan_beside(carrying)
    first.write_text('{"id": "1", "text": "a", "x": {}}\n')
    assert plan_corpus(carrying, Storage(settings.output)).todo


def test_inputs_that_say_nothing_of_a_type_go_on_with_the_pinned_one(settings):
    folder = Path(settings.input[0])
    for name in "ab":
        (folder / f"{name}.jsonl").write_text('{"id": 7, "text": "a"}\n')
    plan_beside(settings)
    for name in "ab":
        (folder / f"{name}.jsonl").write_text("")

    assert plan_corpus(settings, Storage(settings.output)).pin.carried.field("id").type == "int64"


def test_what_was_written_into_the_input_folder_is_no_document(settings):
    inside = settings.model_copy(update={"output": f"{settings.input[0]}/vectors"})
    before = plan_corpus(inside, Storage(inside.output))

    after = plan_beside(inside, ShardName(next(iter(before.units)), 0, last=True))

    assert after.sources == before.sources


def test_of_two_jobs_that_start_together_the_second_is_refused_if_its_types_are_of_another_kind(
    settings,
):
    storage = Storage(settings.output)
    first = plan_corpus(settings, storage)
    for name in "ab":
        (Path(settings.input[0]) / f"{name}.jsonl").write_text('{"id": 7, "text": "a"}\n')
    second = plan_corpus(settings, storage)  # which sees no pin either

    assert pin_plan(first, storage).pin.carried.field("id").type == "string"
    with pytest.raises(LayoutMismatchError, match=r"'id' is int64 in .*/a\.jsonl and string"):
        pin_plan(second, storage)


def test_a_source_that_changed_is_planned_in_its_new_version(settings):
    source = plan_corpus(settings, Storage(settings.output)).sources[0]
    Path(source.uri).write_text('{"id": "1", "text": "another"}\n')
    (unit,) = plan_again(source, settings)
    assert unit.source.version != source.version
    assert unit.size_bytes == Path(source.uri).stat().st_size


def test_nothing_is_left_of_a_source_that_is_gone(settings, caplog):
    source = plan_corpus(settings, Storage(settings.output)).sources[0]
    Path(source.uri).unlink()
    assert plan_again(source, settings) == []
    assert f"{source.uri} is gone since the job was planned" in caplog.text


def test_of_a_hubs_model_workers_are_told_the_commit_and_the_pin_keeps_what_the_user_gave(
    settings, tiny_model, tmp_path, monkeypatch
):
    """The branch may move before the last worker starts."""
    commit = tmp_path / "snapshots" / ("a" * 40)
    shutil.copytree(tiny_model, commit)
    monkeypatch.setattr(reference, "download_from_hub", lambda *_: commit)
    given = EncoderSettings(model="org/name", query_pooling="mean", document_pooling="cls")
    plan = plan_corpus(settings.model_copy(update={"encoder": given}), Storage(settings.output))
    assert plan.model == f"org/name@{'a' * 40}"
    pinned = {name: plan.pin.provenance[name] for name in ("model", "revision")}
    assert pinned == {"model": "org/name", "revision": "a" * 40}
