"""A corpus as the job leaves it has no findings; every kind of damage is found and named."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import ClientPayloadError
from fsspec.implementations.memory import MemoryFileSystem

from encoder.corpus_files import PROBE_VECTORS_FILE
from encoder.errors import ModelLoadError, SpaceMismatchError
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace
from pipelines import verify as command
from pipelines.actor.events import UnitEvent
from pipelines.actor.unit_embedder import UnitEmbedder
from pipelines.actor.unit_job import UnitJob
from pipelines.columns import EMBEDDING
from pipelines.corpus import shard_file
from pipelines.corpus.index import list_shards
from pipelines.corpus.pin import pin_output
from pipelines.corpus.shards import ShardFooter, ShardName, footer_of, serialize_shard
from pipelines.driver.corpus_plan import plan_corpus
from pipelines.driver.publisher import Publisher
from pipelines.driver.report import RunReport
from pipelines.errors import CorpusError, StorageError
from pipelines.settings import EmbedCorpusSettings
from pipelines.storage import Storage
from pipelines.verification import shard_check
from pipelines.verify import VerifySettings, verify
from support.models import save_random_bert

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "seven"]


def text(number: int) -> str:
    """A text of its own; every 7th is longer than the model takes, every 9th is white space."""
    if number % 9 == 8:
        return " \t "
    count = 200 if number % 7 == 6 else 4 + number % 5
    return " ".join(WORDS[(number * 5 + i * (number % 3 + 1)) % len(WORDS)] for i in range(count))


def write_sources(folder: Path) -> Path:
    """Write JSON lines that make several byte ranges, and row groups that make several units."""
    folder.mkdir(parents=True)
    lines = [json.dumps({"id": f"j{n}", "text": text(n), "lang": "en"}) for n in range(30)]
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    rows = [{"id": f"p{n}", "text": text(n), "lang": None} for n in range(30, 54)]
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("lang", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "b.parquet", row_group_size=6)
    return folder


def embed(
    sources: Path | str, output: Path, model: Path, *, index: bool = True, **changes: Any
) -> None:
    """Run the job without Ray: the same plan, units and index, one unit after the other."""
    encoder = {"model": str(model), "backend": "torch", "dtype": "float32", "num_threads": 1}
    encoder |= changes.pop("encoder", {})
    layout = {"rows_per_shard": 4, "unit_bytes": 900, "on_long": "chunk", "chunk_overlap": 16}
    settings = EmbedCorpusSettings(
        input=(str(sources),),
        output=str(output),
        encoder=EncoderSettings(**encoder),
        columns=("lang",),
        **{**layout, **changes},
    )
    storage = Storage(settings.output)
    plan = plan_corpus(settings, storage)
    pin = pin_output(storage, plan.pin)
    job = UnitJob(settings.output, pin, settings.encoder, None, 60.0, "run")
    embedder = UnitEmbedder(job)
    for unit in plan.units.values():
        endings = [event for event in embedder.events(unit) if isinstance(event, UnitEvent)]
        assert [ending.message for ending in endings] == [""]
    if index:
        report = RunReport("run", pin.space.fingerprint, storage.uri, len(plan.units), 0)
        run = Publisher(settings, storage, pin, plan.units, plan.done, report)
        assert run.publish() == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    embed(write_sources(folder / "in"), folder / "out", tiny_model)
    return folder


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A copy of a good corpus, to damage; its sources are shared."""
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


@pytest.fixture
def own(tmp_path: Path, tiny_model: Path) -> Path:
    """A corpus with sources of its own, `in` and `out`."""
    embed(write_sources(tmp_path / "in"), tmp_path / "out", tiny_model)
    return tmp_path


def findings(output: Path, **flags: Any) -> tuple[str, ...]:
    return verify(VerifySettings(output=str(output), **flags)).findings


def naming(shard: ShardName, what: str, found: tuple[str, ...]) -> list[str]:
    """The findings that name a shard and say this of it."""
    return [line for line in found if str(shard) in line and what in line]


def shards(output: Path) -> list[ShardName]:
    names = (ShardName.parse(path.name) for path in (output / "data").iterdir())
    return sorted(name for name in names if name is not None)


def a_unit_of(output: Path, at_least: int) -> list[ShardName]:
    """The shards of a unit that has so many."""
    units: dict[str, list[ShardName]] = {}
    for name in shards(output):
        units.setdefault(name.unit, []).append(name)
    return next(found for found in units.values() if len(found) >= at_least)


def rewrite(
    output: Path,
    name: ShardName,
    *,
    table: Callable[[pa.Table], pa.Table] = lambda table: table,
    footer: Callable[[ShardFooter], ShardFooter] = lambda footer: footer,
    space: Callable[[EmbeddingSpace], EmbeddingSpace] = lambda space: space,
) -> None:
    path = output / "data" / str(name)
    content = pq.read_table(path)
    said, spanned = footer_of(content.schema, str(name))
    path.write_bytes(serialize_shard(table(content), footer(said), space(spanned)))


def with_vectors(change: Callable[[np.ndarray], None]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        position = table.schema.get_field_index(EMBEDDING)
        column = table[EMBEDDING].combine_chunks()
        vectors = column.flatten().to_numpy().reshape(table.num_rows, -1).copy()
        change(vectors)
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        return table.set_column(position, table.schema.field(position), values)

    return changed


def with_id(row: int, identity: str) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        ids = table["id"].to_pylist()
        ids[row] = identity
        return table.set_column(0, table.schema.field(0), pa.array(ids, pa.string()))

    return changed


def replace_text(file: Path, old: str, new: str) -> None:
    """Change a source so that its version stays the same: size and time of the last change."""
    status, content = file.stat(), file.read_text()
    assert content.count(old) == 1
    assert len(old) == len(new)
    file.write_text(content.replace(old, new))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


# A corpus as it should be


def test_a_corpus_as_the_job_leaves_it_has_no_findings(made):
    report = verify(VerifySettings(output=str(made / "out"), sample=25, source=True))
    assert report.findings == ()
    assert report.sources == 2
    assert report.rejected == 6
    assert report.shards == len(shards(made / "out"))
    assert report.sampled == 25
    assert 0.99999 <= report.min_cosine <= report.mean_cosine


def test_the_corpus_under_test_has_units_of_several_shards_and_chunked_documents(made):
    assert len({name.unit for name in shards(made / "out")}) >= 4
    assert len(a_unit_of(made / "out", at_least=3)) >= 3
    table = pq.read_table(made / "out" / "data")
    assert max(table["chunk_index"].to_pylist()) >= 1
    assert set(table["lang"].to_pylist()) == {"en", None}


@pytest.mark.parametrize(
    "changes",
    [
        {"embedding_dtype": "float16"},
        {"encoder": {"normalize": False, "max_seq_length": 40}},
        {"encoder": {"truncate_dim": 16, "document_prompt": "passage: "}},
        {"on_long": "truncate", "role": "query"},
        {"on_long": "reject", "rows_per_shard": 1000, "unit_bytes": 100_000},
    ],
    ids=str,
)
def test_a_corpus_of_any_layout_and_space_has_no_findings(tmp_path, tiny_model, changes):
    embed(write_sources(tmp_path / "in"), tmp_path / "out", tiny_model, **changes)
    report = verify(VerifySettings(output=str(tmp_path / "out"), sample=1000, source=True))
    assert report.findings == ()
    assert report.sampled == report.rows > 0


def test_the_model_may_be_somewhere_else_now(made, tiny_model, tmp_path):
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    report = verify(VerifySettings(output=str(made / "out"), sample=2, model=str(moved)))
    assert (report.findings, report.sampled) == ((), 2)


# Damage to shards


def test_a_truncated_shard_is_named(output):
    name = shards(output)[2]
    path = output / "data" / str(name)
    path.write_bytes(path.read_bytes()[:-100])
    found = findings(output, source=True, sample=5)
    assert naming(name, "is not readable", found)
    assert naming(name, "_index.json says", found)
    # The shards around it are whole: nothing is said of them.
    assert all(str(name) in line for line in found)


def test_one_flipped_bit_of_a_columns_name_is_found(output):
    name = shards(output)[2]
    path = output / "data" / str(name)
    path.write_bytes(path.read_bytes().replace(b"chunk_index", b"\xe3hunk_index"))
    found = findings(output)
    assert naming(name, "is not readable", found)
    assert all(str(name) in line for line in found)


def test_ids_that_cannot_be_read_again_are_found(output, monkeypatch):
    def refuse(*_, **__):
        raise CorpusError("shard-1 is not readable: a page")

    monkeypatch.setattr(command, "find_duplicate_ids", refuse)
    assert findings(output) == ("shard-1 is not readable: a page; ids were not compared",)


def test_a_store_that_does_not_answer_is_no_finding(output, monkeypatch):
    def no_answer(*_: object, **__: object) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(shard_file.pq, "ParquetFile", no_answer)
    with pytest.raises(StorageError, match=r"cannot read .*: no answer"):
        findings(output)


@pytest.fixture
def meanwhile(monkeypatch):
    """Returns a function that has something done right after the shards were listed first."""

    def do(work: Callable[[ShardName], object]) -> None:
        def listing(storage: Storage) -> dict[ShardName, int]:
            monkeypatch.undo()
            found = list_shards(storage)
            work(sorted(found)[2])
            return found

        monkeypatch.setattr(command, "list_shards", listing)

    return do


@pytest.mark.parametrize("folders", [["data"], ["_rejects", "data"]], ids=" and ".join)
def test_a_shard_that_a_job_retires_meanwhile_is_no_damage(output, meanwhile, folders):
    def retire(name: ShardName) -> None:
        for folder in folders:
            (output / folder / str(name)).unlink(missing_ok=True)

    meanwhile(retire)
    with pytest.raises(CorpusError, match="a job works on the corpus; verify it afterwards"):
        findings(output)


def test_a_shard_that_is_retired_before_its_ids_are_compared_is_no_damage(output, monkeypatch):
    check = command.find_duplicate_ids

    def retire(storage: Storage, names: list[ShardName], **options: object) -> object:
        storage.delete(f"data/{names[0]}")
        return check(storage, names, **options)

    monkeypatch.setattr(command, "find_duplicate_ids", retire)
    with pytest.raises(CorpusError, match="a job works on the corpus"):
        findings(output)


def test_a_shard_that_a_job_commits_meanwhile_does_not_hide_damage(output, meanwhile):
    damaged = shards(output)[0]
    (output / "data" / str(damaged)).write_bytes(b"PAR1")
    new = ShardName("f" * 32, 0, last=True)
    meanwhile(lambda name: shutil.copy(output / f"data/{name}", output / f"data/{new}"))
    assert naming(damaged, "is not readable", findings(output))


def test_one_flipped_bit_of_one_number_of_a_vector_is_found(output):
    # Names are hashes of the sources' place and time, so any shard may be that of no rows.
    name, path, vectors = next(
        (name, path, vectors)
        for name in shards(output)
        if len(vectors := pq.read_table(path := output / "data" / str(name))[EMBEDDING])
    )
    vector = np.array(vectors[0].as_py(), np.float32).tobytes()
    content = bytearray(path.read_bytes())
    assert content.count(vector) == 1
    content[content.index(vector)] ^= 1
    path.write_bytes(content)
    (found,) = findings(output)
    assert naming(name, "is not readable", (found,))
    assert "checksum" in found.lower()


@pytest.mark.parametrize("field", ["rows", "documents", "tokens", "truncated"])
def test_a_footer_that_counts_otherwise_than_the_file_is_found(output, field):
    name = shards(output)[0]
    rewrite(output, name, footer=lambda f: replace(f, **{field: getattr(f, field) + 1}))
    assert naming(name, f"{field}, the file holds", findings(output))


def test_a_footer_of_another_space_is_found_with_the_field(output):
    name = shards(output)[3]
    rewrite(output, name, space=lambda space: replace(space, max_seq_length=64))
    assert naming(name, "max_seq_length: corpus 128, shard 64", findings(output))


def test_a_footer_of_another_range_than_the_name_is_found(output):
    name = shards(output)[0]
    rewrite(output, name, footer=lambda f: replace(f, range_stop=f.range_stop + 1))
    assert naming(name, "belong to unit", findings(output))


def test_a_footer_without_its_types_is_found(output):
    name = shards(output)[0]
    rewrite(output, name, footer=lambda f: replace(f, row_stop=str(f.row_stop)))
    assert naming(name, "row_stop: expected a valid integer", findings(output))


def test_a_shard_under_the_name_of_another_is_found(output):
    name = a_unit_of(output, at_least=3)[1]
    wrong = replace(name, ordinal=7)
    (output / "data" / str(name)).rename(output / "data" / str(wrong))
    assert naming(wrong, "its footer says ordinal 1", findings(output))


def test_a_shard_with_other_columns_is_found(output):
    name = shards(output)[0]
    rewrite(output, name, table=lambda table: table.drop_columns(["lang"]))
    assert naming(name, "columns are", findings(output))


def test_a_parquet_file_without_a_footer_of_the_job_is_found(output):
    name = shards(output)[0]
    pq.write_table(pa.table({"id": ["a"]}), output / "data" / str(name))
    assert naming(name, "has no twofold footer", findings(output))


def test_a_parquet_file_that_is_no_shard_is_found(output):
    pq.write_table(pa.table({"id": ["a"]}), output / "data" / "extra.parquet")
    assert findings(output) == ("data/extra.parquet: is not a shard of twofold; move it elsewhere",)


@pytest.mark.parametrize("rows_at_once", [1, 4096])
def test_a_vector_that_is_not_finite_is_named_by_its_row(output, monkeypatch, rows_at_once):
    monkeypatch.setattr(shard_check, "_BATCH_ROWS", rows_at_once)
    name = a_unit_of(output, at_least=3)[0]

    def spoil(vectors: np.ndarray) -> None:
        vectors[2, 5] = np.nan

    rewrite(output, name, table=with_vectors(spoil))
    assert naming(name, "row 2: vector is not finite", findings(output))


def test_a_vector_that_is_not_of_unit_length_is_named_by_its_row(output):
    name = a_unit_of(output, at_least=3)[0]

    def spoil(vectors: np.ndarray) -> None:
        vectors[1] *= 1.0001

    rewrite(output, name, table=with_vectors(spoil))
    assert naming(name, "row 1: vector is not of length 1", findings(output))


def test_vectors_of_other_texts_are_found_by_the_sample(output):
    name = a_unit_of(output, at_least=3)[0]

    def swap(vectors: np.ndarray) -> None:
        vectors[[0, 1]] = vectors[[1, 0]]

    rewrite(output, name, table=with_vectors(swap))
    assert not naming(name, "cosine", findings(output))
    report = verify(VerifySettings(output=str(output), sample=1000))
    assert len(naming(name, "with the model card in float32", report.findings)) == 2
    assert report.min_cosine < 0.999


@pytest.mark.parametrize(("cosine", "is_found"), [(0.97, False), (0.93, True)])
def test_a_shard_in_int8_has_a_bar_of_its_own(output, cosine, is_found):
    name = a_unit_of(output, at_least=3)[0]

    def turn(vectors: np.ndarray) -> None:
        for vector in vectors:
            aside = np.zeros_like(vector)
            aside[[0, 1]] = vector[1], -vector[0]  # At a right angle.
            aside /= np.linalg.norm(aside)
            vector[:] = cosine * vector + np.sqrt(1 - cosine**2) * aside

    def in_int8(footer: ShardFooter) -> ShardFooter:
        return replace(footer, provenance={**footer.provenance, "dtype": "int8"})

    rewrite(output, name, table=with_vectors(turn), footer=in_int8)
    found = naming(name, "expected 0.95 (computed in int8", findings(output, sample=1000))
    assert bool(found) == is_found
    assert bool(naming(name, "cosine", findings(output, sample=1000))) == is_found


def test_an_id_that_is_there_twice_is_named_with_both_shards(output):
    first, second = a_unit_of(output, at_least=3)[:2]
    twice = pq.read_table(output / "data" / str(first))["id"][0].as_py()
    rewrite(output, second, table=with_id(0, twice))
    (line,) = naming(first, "is not unique", findings(output))
    assert str(second) in line
    assert repr(twice) in line


# Shards, units and the index


def test_a_shard_that_is_missing_in_the_middle_is_named(output):
    before, gone, after = a_unit_of(output, at_least=3)[:3]
    (output / "data" / str(gone)).unlink()
    found = findings(output)
    assert naming(after, "shard 1 of its unit is missing", found)
    assert naming(gone, "does not exist", found)
    assert not naming(before, "", found)


def test_a_unit_without_its_last_shard_is_named(output):
    *_, before, last = a_unit_of(output, at_least=3)
    (output / "data" / str(last)).unlink()
    assert naming(before, "the end of its unit is missing", findings(output))


def test_a_range_of_a_source_that_no_unit_has_is_found(output):
    tables = {name: pq.read_schema(output / "data" / str(name)) for name in shards(output)}
    footers = {name: footer_of(schema, "")[0] for name, schema in tables.items()}
    gone = [name for name, footer in footers.items() if footer.range_start == 0]
    for name in gone:
        (output / "data" / str(name)).unlink()
    assert len([line for line in findings(output) if "the shards between are missing" in line]) == 2


def test_shards_of_two_versions_of_a_source_are_found(own, tiny_model):
    source = own / "in" / "a.jsonl"
    old = set(shards(own / "out"))
    source.write_text(source.read_text() + json.dumps({"id": "new", "text": "new", "lang": ""}))
    embed(own / "in", own / "out", tiny_model, index=False)
    found = findings(own / "out")
    assert [line for line in found if f"{source} is there in 2 versions" in line]
    for name in set(shards(own / "out")) - old:
        assert naming(name, "is not listed in _index.json", found)


def edit_index(output: Path, change: Callable[[dict[str, Any]], None]) -> None:
    index = json.loads((output / "_index.json").read_text())
    change(index)
    (output / "_index.json").write_text(json.dumps(index))


def test_a_shard_that_the_index_does_not_list_is_named(output):
    edit_index(output, lambda index: index["shards"].pop(1))
    (found,) = findings(output)
    assert naming(shards(output)[1], "exists and is not listed", (found,))


def test_a_stale_entry_of_the_index_is_named_with_its_field(output):
    edit_index(output, lambda index: index["shards"][0].update(tokens=1))
    (found,) = findings(output)
    assert naming(shards(output)[0], "tokens differ", (found,))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda index: index["totals"].update(rows=1), "its space, totals or sources"),
        (lambda index: index["sources"].pop(), "its space, totals or sources"),
        (lambda index: index.update(fingerprint="0"), "its space, totals or sources"),
        (lambda index: index.pop("shards"), "is not an index of this version"),
    ],
)
def test_an_index_that_is_not_that_of_its_shards_is_found(output, change, what):
    edit_index(output, change)
    (found,) = findings(output)
    assert found.startswith("_index.json")
    assert what in found


def test_a_corpus_without_an_index_says_that_the_job_did_not_end(output):
    (output / "_index.json").unlink()
    (found,) = findings(output)
    assert found.startswith("_index.json is missing")


# Rejects


def a_reject(output: Path) -> ShardName:
    name = ShardName.parse(sorted((output / "_rejects").iterdir())[0].name)
    assert name is not None
    return name


def test_a_missing_rejects_file_is_named(output):
    name = a_reject(output)
    (output / "_rejects" / str(name)).unlink()
    (found,) = findings(output)
    assert naming(name, "is missing; the shard's footer counts 1", (found,))


def test_a_rejects_file_that_cannot_be_read_is_named(output):
    name = a_reject(output)
    path = output / "_rejects" / str(name)
    path.write_bytes(path.read_bytes()[:-9])
    assert naming(name, "is not readable", findings(output))


def test_a_rejects_file_of_other_rows_than_the_footer_counts_is_named(output):
    name = a_reject(output)
    path = output / "_rejects" / str(name)
    rows = pq.read_table(path)
    pq.write_table(pa.concat_tables([rows, rows]), path)
    assert naming(name, "has 2 rows; the shard's footer counts 1", findings(output))


# Sources


def shard_of(output: Path, identity: str) -> ShardName:
    """The shard that holds a document's first chunk."""
    return next(
        name
        for name in shards(output)
        if identity in pq.read_table(output / "data" / str(name))["id"].to_pylist()
    )


@pytest.mark.parametrize("flags", [{"source": True}, {"sample": 1000}], ids=str)
def test_a_text_that_is_not_the_one_that_was_embedded_is_named_by_shard_and_row(own, flags):
    line = next(x for x in (own / "in" / "a.jsonl").read_text().splitlines() if '"j4"' in x)
    words = json.loads(line)["text"]
    replace_text(own / "in" / "a.jsonl", line, line.replace(words, "zz" + words[2:]))
    name = shard_of(own / "out", "j4")
    assert findings(own / "out") == ()
    (found,) = findings(own / "out", **flags)
    assert naming(name, "(id 'j4')", (found,))


def test_a_text_that_goes_on_after_what_was_embedded_is_named(own, tiny_model):
    lines = (own / "in" / "a.jsonl").read_text()
    assert '"lang": "en"' in lines
    replace_text(own / "in" / "a.jsonl", '{"id": "j2", ', '{"id": "j2" ,')
    assert findings(own / "out", source=True) == ()
    old = next(line for line in lines.splitlines() if '"j2"' in line).replace('"j2", ', '"j2" ,')
    body = json.loads(old)
    new = json.dumps({"id": "j2", "text": body["text"] + "s", "lang": "e"})
    replace_text(own / "in" / "a.jsonl", old, new)
    (found,) = findings(own / "out", source=True)
    assert naming(shard_of(own / "out", "j2"), "(id 'j2'): its text is not", (found,))


def test_another_id_in_the_source_is_named(own):
    replace_text(own / "in" / "a.jsonl", '"id": "j5"', '"id": "x5"')
    (found,) = findings(own / "out", source=True)
    assert naming(shard_of(own / "out", "j5"), "has id 'x5', found 'j5'", (found,))


def test_a_source_row_that_is_a_document_now_and_was_rejected_is_named(own):
    old, new = '{"id": "j8", "text": " \\t "', '{"id": "j8", "text": "abcd"'
    replace_text(own / "in" / "a.jsonl", old, new)
    (found,) = findings(own / "out", source=True)
    assert "(id 'j8') is a document and was rejected (validate)" in found
    assert any(str(name) in found for name in shards(own / "out"))


def test_a_source_row_that_was_embedded_and_is_no_document_now_is_named(own):
    line = next(x for x in (own / "in" / "a.jsonl").read_text().splitlines() if '"j3"' in x)
    body = json.loads(line)["text"]
    replace_text(own / "in" / "a.jsonl", line, line.replace(body, " " * len(body)))
    (found,) = findings(own / "out", source=True)
    assert naming(shard_of(own / "out", "j3"), "is no document (text is only white", (found,))


def test_a_source_that_no_shard_is_of_is_named_and_what_the_job_wrote_is_no_source(own, tiny_model):
    late = own / "in" / "late.jsonl"
    late.write_text(json.dumps({"id": "l1", "text": "a late text", "lang": None}) + "\n")
    assert findings(own / "out") == ()
    (found,) = findings(own / "out", source=True)
    assert found.startswith(f"{late} has no shards: it came after the last run, or failed in it")

    late.unlink()
    (own / "out").rename(own / "in" / "vectors")
    assert findings(own / "in" / "vectors", source=True, sample=5) == ()


@pytest.mark.parametrize("flags", [{"source": True}, {"sample": 1000}], ids=str)
def test_a_source_that_changed_since_is_named_with_what_to_do(own, flags):
    file = own / "in" / "b.parquet"
    os.utime(file, ns=(1, 1))
    assert findings(own / "out") == ()
    (found,) = findings(own / "out", **flags)
    assert f"{file} changed since it was embedded" in found
    assert "run `twofold embed`" in found
    assert any(str(name) in found for name in shards(own / "out"))


@pytest.mark.parametrize("flags", [{"source": True}, {"sample": 1000}], ids=str)
@pytest.mark.parametrize("gone", ["in/b.parquet", "in"])
def test_a_source_that_is_gone_is_named(own, flags, gone):
    path = own / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = findings(own / "out", **flags)
    assert len(found) == (1 if gone == "in/b.parquet" else 2)
    assert all("cannot be read again" in line for line in found)
    assert any(str(own / "in" / "b.parquet") in line for line in found)


# The probe vectors


@pytest.mark.parametrize("flags", [{"source": True}, {"sample": 1000}], ids=str)
@pytest.mark.parametrize("cut_off", ["find", "_open"])
def test_a_source_whose_store_cuts_the_connection_is_named(
    tmp_path, tiny_model, monkeypatch, flags, cut_off
):
    def cut(*args: object, **options: object) -> None:
        raise ClientPayloadError("the response is not complete")

    store = f"memory:///{uuid.uuid4().hex}/in"
    for file in write_sources(tmp_path / "in").iterdir():
        MemoryFileSystem().pipe_file(f"{store}/{file.name}", file.read_bytes())
    embed(store, tmp_path / "out", tiny_model)
    assert findings(tmp_path / "out", **flags) == ()

    monkeypatch.setattr(MemoryFileSystem, cut_off, cut)
    found = findings(tmp_path / "out", **flags)
    for name in ("a.jsonl", "b.parquet"):
        assert any(f"{store}/{name}" in line and "not complete" in line for line in found)


def test_probe_vectors_that_are_damaged_are_named(output):
    (output / PROBE_VECTORS_FILE).write_text("{")
    (found,) = findings(output)
    assert found.startswith(f"{output}/{PROBE_VECTORS_FILE} does not hold")


@pytest.mark.parametrize("role", ["query", "document"])
def test_probe_vectors_that_are_not_the_cards_are_named_with_their_text(output, role):
    probe = json.loads((output / PROBE_VECTORS_FILE).read_text())
    probe[role][2] = probe[role][3]
    (output / PROBE_VECTORS_FILE).write_text(json.dumps(probe))
    assert findings(output) == ()
    (found,) = findings(output, sample=1)
    assert found.startswith(f"{PROBE_VECTORS_FILE}: {probe['texts'][2]!r} as {role} has cosine")


# What is no finding but an error


def test_another_model_is_refused_before_anything_is_read(output, tmp_path):
    size = {"layers": 1, "hidden": 32, "heads": 2, "intermediate": 64, "max_tokens": 64}
    other = save_random_bert(tmp_path / "other", **size, initializer_range=0.2, seed=7)
    with pytest.raises(SpaceMismatchError, match="weights_sha256: corpus"):
        findings(output, sample=1, model=str(other))


def test_a_model_that_is_gone_is_asked_for(output):
    pin = json.loads((output / "_space.json").read_text())
    pin["provenance"]["model"] = "/nowhere"
    (output / "_space.json").write_text(json.dumps(pin))
    with pytest.raises(ModelLoadError, match="give --model where it is now"):
        findings(output, sample=1)


def test_a_folder_that_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="is no corpus"):
        findings(tmp_path)


# The command


def test_the_command_ends_with_0_for_a_good_corpus(made, capsys):
    assert command.main(["--output", str(made / "out"), "--sample", "3"]) == 0
    output = capsys.readouterr().out
    assert "min cosine" in output
    assert "0.99999" in output or "1.0000" in output


def test_the_command_prints_every_finding_and_ends_with_8(output, capsys):
    names = shards(output)[:2]
    for name in names:
        rewrite(output, name, footer=lambda footer: replace(footer, rows=footer.rows + 1))
    assert command.main(["--output", str(output)]) == 8
    printed = capsys.readouterr()
    for name in names:
        assert f"{name}: its footer says" in printed.out
    assert printed.err.startswith("twofold: error: expected a corpus without findings")
    assert printed.err.count("\n") == 1


def test_the_name_of_a_file_that_is_found_commands_no_terminal(output, capsys):
    (output / "data" / "e\x1b[31mvil.parquet").touch()
    assert command.main(["--output", str(output)]) == 8
    printed = capsys.readouterr()
    assert r"e\x1b[31mvil" in printed.out
    assert r"e\x1b[31mvil" in printed.err
    assert "\x1b" not in printed.out + printed.err
