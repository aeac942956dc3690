"""Exact search against brute force, over corpora of given vectors; what is refused and how."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.corpus_files import PROBE_VECTORS_FILE
from encoder.errors import InvalidInputError, SpaceMismatchError
from encoder.probe_vectors import ProbeVectors
from pipelines import search
from pipelines.corpus import blocks
from pipelines.errors import CorpusError
from pipelines.search import Hit
from support.vectors import (
    FixedEncoder,
    VectorRow,
    make_pin,
    make_space,
    publish_index,
    write_vectors,
)

SPACE = make_space(4)
PIN = make_pin(SPACE)
UP, RIGHT, DOWN = (0, 1, 0, 0), (1, 0, 0, 0), (0, -1, 0, 0)


def found(folder: Path, vector, k: int, space=SPACE) -> list[Hit]:
    encoder = FixedEncoder(space, {"q": vector})
    return search.search(str(folder), ["q"], k, encoder=encoder)[0].hits


# Small whole numbers: every sum is exact in float32, so brute force must agree to the bit.
VECTOR = st.tuples(*[st.integers(-1, 2)] * 4)


@st.composite
def corpora(draw):
    """Documents of 1 to 3 chunks, cut into shards between documents."""
    documents = draw(st.lists(st.lists(VECTOR, min_size=1, max_size=3), max_size=30))
    ids = draw(st.permutations([f"d{number:02}" for number in range(len(documents))]))
    shards, cut = [[]], st.sampled_from([True, False, False, False])
    for identity, chunks in zip(ids, documents, strict=True):
        if draw(cut):
            shards.append([])
        shards[-1] += [VectorRow(identity, vector, i) for i, vector in enumerate(chunks)]
    return shards


def by_brute_force(shards, query, k: int) -> list[tuple[str, float, int]]:
    """The definition: every row's score, documents by their best, the first of equal chunks."""
    best: dict[str, tuple[float, int]] = {}
    for row in (row for shard in shards for row in shard):
        score = float(np.dot(row.vector, query))
        if row.id not in best or score > best[row.id][0]:
            best[row.id] = (score, row.chunk_index)
    ordered = sorted((-score, identity, chunk) for identity, (score, chunk) in best.items())
    return [(identity, -score, chunk) for score, identity, chunk in ordered[:k]]


@settings(max_examples=50, deadline=None)
@given(
    shards=corpora(),
    queries=st.lists(VECTOR, min_size=1, max_size=3),
    k=st.integers(1, 4) | st.integers(1, 40),
    block_values=st.sampled_from([1, 12, 1 << 20]),
)
def test_hits_are_those_of_brute_force_however_the_corpus_is_cut(shards, queries, k, block_values):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK_VALUES", block_values)
        write_vectors(Path(folder), PIN, shards)
        texts = {f"query {number}": query for number, query in enumerate(queries)}
        results = search.search(folder, list(texts), k, encoder=FixedEncoder(SPACE, texts))
    assert [[(hit.id, hit.score, hit.chunk_index) for hit in found.hits] for found in results] == [
        by_brute_force(shards, query, k) for query in queries
    ]


def test_a_document_is_found_once_with_the_place_of_its_best_chunk(tmp_path):
    rows = [VectorRow("a", DOWN, 0), VectorRow("a", UP, 1), VectorRow("a", RIGHT, 2)]
    names = write_vectors(tmp_path, PIN, [[VectorRow("b", RIGHT)], rows])
    first, second = found(tmp_path, UP, 5)
    assert (first.id, first.score, first.chunk_index) == ("a", 1.0, 1)
    assert (first.char_start, first.char_end, first.shard) == (10, 22, str(names[1]))
    assert second.id == "b"


@pytest.mark.parametrize("rows_at_once", [1, 2, 1024])
def test_pass_through_columns_come_with_the_hits_wherever_in_their_shard_they_are(
    tmp_path, monkeypatch, rows_at_once
):
    monkeypatch.setattr(blocks, "_ROWS_AT_ONCE", rows_at_once)
    monkeypatch.setattr(blocks, "_BLOCK_VALUES", 4 * rows_at_once)
    rows = [VectorRow("a", DOWN, title="no"), VectorRow("b", UP, title="yes"), VectorRow("c", UP)]
    write_vectors(tmp_path, PIN, [rows])
    hits = found(tmp_path, UP, 2)
    assert [(hit.id, hit.columns) for hit in hits] == [
        ("b", {"title": "yes"}),
        ("c", {"title": None}),
    ]


def test_ids_come_back_with_the_type_of_the_source(tmp_path):
    pin = make_pin(SPACE, id_type=pa.int64())
    write_vectors(tmp_path, pin, [[VectorRow(9, UP), VectorRow(10, UP)]])
    assert [hit.id for hit in found(tmp_path, UP, 2)] == [9, 10]


def test_vectors_stored_in_half_precision_are_scored_in_float32(tmp_path):
    pin = make_pin(SPACE, embedding_dtype="float16")
    write_vectors(
        tmp_path, pin, [[VectorRow("a", (2048, 1, 0, 0)), VectorRow("b", (2048, 2, 0, 0))]]
    )
    assert [hit.score for hit in found(tmp_path, (1, 1, 0, 0), 2)] == [2050.0, 2049.0]


def test_a_space_that_is_not_normalized_is_searched_by_cosine(tmp_path):
    space = make_space(4, normalize=False)
    rows = [VectorRow("long", (90, 60, 0, 0)), VectorRow("near", (0, 0.1, 0, 0))]
    write_vectors(tmp_path, make_pin(space), [[*rows, VectorRow("zero", (0, 0, 0, 0))]])
    hits = found(tmp_path, (0, 5, 0, 0), 3, space)
    assert [hit.id for hit in hits] == ["near", "long", "zero"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 60 / np.hypot(90, 60), 0.0])


def test_a_vector_that_is_no_number_is_never_a_hit(tmp_path):
    write_vectors(tmp_path, PIN, [[VectorRow("nan", (np.nan, 1, 0, 0)), VectorRow("a", DOWN)]])
    assert [hit.id for hit in found(tmp_path, UP, 5)] == ["a"]


def test_only_shards_that_the_index_lists_are_searched(tmp_path):
    names = write_vectors(tmp_path, PIN, [[VectorRow("old", UP)], [VectorRow("new", UP)]])
    assert {hit.id for hit in found(tmp_path, UP, 5)} == {"old", "new"}
    publish_index(tmp_path, PIN, leave_out=names[:1])
    assert [hit.id for hit in found(tmp_path, UP, 5)] == ["new"]


def test_a_query_that_is_longer_than_the_model_reads_says_so(tmp_path):
    write_vectors(tmp_path, PIN, [[VectorRow("a", UP)]])
    encoder = FixedEncoder(SPACE, {}, limit=20)
    queries = ["what is up", "what is up with a long tail"]
    results = search.search(str(tmp_path), queries, 1, encoder=encoder)
    assert [found.is_truncated for found in results] == [False, True]


def test_a_corpus_without_rows_has_no_hits(tmp_path):
    write_vectors(tmp_path, PIN, [])
    assert found(tmp_path, UP, 3) == []


def test_an_encoder_of_another_space_is_refused_with_the_fields_that_differ(tmp_path):
    write_vectors(tmp_path, PIN, [[VectorRow("a", UP)]])
    with pytest.raises(SpaceMismatchError, match=r"max_seq_length: corpus 128, here 64"):
        found(tmp_path, UP, 1, replace(SPACE, max_seq_length=64))


def test_a_shard_of_another_space_is_refused_by_its_name(tmp_path):
    write_vectors(tmp_path, PIN, [[VectorRow("a", UP)]])
    other = make_pin(replace(SPACE, weights_sha256="2" * 64))
    (name,) = write_vectors(tmp_path, other, [[VectorRow("b", UP)]], source="/in/b.parquet")
    with pytest.raises(SpaceMismatchError, match=str(name)):
        found(tmp_path, UP, 1)


def test_a_folder_that_is_no_corpus_says_what_was_expected(tmp_path):
    with pytest.raises(CorpusError, match=r"is no corpus: expected _space\.json"):
        found(tmp_path, UP, 1)


def test_a_shard_that_cannot_be_read_is_named_with_what_to_do(tmp_path):
    names = write_vectors(tmp_path, PIN, [[VectorRow("a", UP)], [VectorRow("b", UP)]])
    path = tmp_path / "data" / str(names[1])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match=f"{names[1]} is not readable.*run `twofold verify"):
        found(tmp_path, UP, 1)


@pytest.mark.parametrize("column", ["id", "chunk_index", "embedding", "title", "char_end"])
def test_a_shard_whose_columns_have_other_names_is_named_with_what_to_do(tmp_path, column):
    (name,) = write_vectors(tmp_path, PIN, [[VectorRow("a", UP)]])
    path = tmp_path / "data" / str(name)
    table = pq.read_table(path)
    names = ["other" if each == column else each for each in table.column_names]
    renamed = table.rename_columns(names).replace_schema_metadata(table.schema.metadata)
    pq.write_table(renamed, path)
    with pytest.raises(CorpusError, match=f"{name} is not readable.*run `twofold verify"):
        found(tmp_path, UP, 1)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", pa.array([b"\xff", b"b"]).view(pa.string())),
        ("chunk_index", pa.array([0, None], pa.int32())),
        ("embedding", pa.array([UP, None], pa.list_(pa.float32(), 4))),
        ("title", pa.array([b"\xff", b"b"]).view(pa.string())),
    ],
)
def test_a_shard_with_values_that_nobody_can_read_is_named_with_what_to_do(
    tmp_path, column, values
):
    (name,) = write_vectors(tmp_path, PIN, [[VectorRow("a", UP), VectorRow("b", UP)]])
    path = tmp_path / "data" / str(name)
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(column), column, [values]), path)
    with pytest.raises(CorpusError, match=f"{name} is not readable.*run `twofold verify"):
        found(tmp_path, UP, 1)


def test_a_shard_that_the_index_lists_and_is_gone_is_named(tmp_path):
    names = write_vectors(tmp_path, PIN, [[VectorRow("a", UP)], [VectorRow("b", UP)]])
    publish_index(tmp_path, PIN)
    (tmp_path / "data" / str(names[0])).unlink()
    with pytest.raises(CorpusError, match=f"{names[0]} is not there"):
        found(tmp_path, UP, 1)


@pytest.mark.parametrize(("query", "k"), [("  ", 1), ("q", 0)])
def test_an_empty_query_and_no_hits_wanted_are_refused(tmp_path, query, k):
    with pytest.raises(InvalidInputError, match="k of at least 1"):
        search.search(str(tmp_path), [query], k, encoder=FixedEncoder(SPACE, {}))


def command(folder: Path, monkeypatch, capsys, *flags: str) -> tuple[int, str]:
    """Run the command with given vectors in the place of a model."""
    encoder = FixedEncoder(SPACE, {"up": UP, "right": RIGHT}, limit=20)
    monkeypatch.setattr(search, "find_corpus_model", lambda pin, given: CorpusModelOf(given))
    monkeypatch.setattr(search, "load_encoder", lambda given: encoder)
    code = search.main(["--corpus", str(folder), *flags])
    output = capsys.readouterr()
    return code, output.out + output.err


class CorpusModelOf:
    def __init__(self, given) -> None:
        self.settings = given


def test_the_command_prints_ranks_scores_ids_and_columns_for_every_query(
    tmp_path, monkeypatch, capsys
):
    rows = [VectorRow("a", UP, title="to the [bold]top[/]"), VectorRow("b", RIGHT, title="aside")]
    write_vectors(tmp_path, PIN, [rows])
    flags = ("--query", "up", "--query", "right", "--k", "1")
    code, output = command(tmp_path, monkeypatch, capsys, *flags)
    lines = [line.split() for line in output.splitlines()]
    assert code == 0
    shown = [[word for word in line if word.isalnum() or word[0].isdigit()] for line in lines]
    assert ["1", "1.0000", "a", "to", "the"] in shown
    assert ["1", "1.0000", "b", "aside"] in shown
    assert "[bold]top[/]" in output
    assert "model loaded in" in output


def test_the_command_says_beside_its_tables_which_queries_were_cut(tmp_path, monkeypatch, capsys):
    write_vectors(tmp_path, PIN, [[VectorRow("a", UP)]])
    flags = ("--query", "up", "--query", "up with a long tail that is not read")
    code, output = command(tmp_path, monkeypatch, capsys, *flags)
    assert code == 0
    # On stderr, which `command` puts last.
    assert output.splitlines()[-1] == (
        "query 'up with a long tail that is not read' is longer than the model reads: its first "
        "128 tokens were looked for"
    )
    assert output.count("is longer than") == 1


def test_the_command_does_not_hand_control_characters_of_the_corpus_to_the_terminal(
    tmp_path, monkeypatch, capsys
):
    write_vectors(tmp_path, PIN, [[VectorRow("a", UP, title="\x1b[31mred")]])
    code, output = command(tmp_path, monkeypatch, capsys, "--query", "up")
    assert code == 0
    assert "\x1b" not in output
    assert "red" in output


@pytest.mark.parametrize("cosine", [1.0, 0.9])
def test_the_command_refuses_a_model_that_computes_other_vectors_than_the_corpus(
    tmp_path, monkeypatch, capsys, cosine
):
    write_vectors(tmp_path, PIN, [[VectorRow("a", UP)]])
    probe = ProbeVectors.of(FixedEncoder(SPACE, {}))
    for vectors in probe.vectors.values():
        vectors[0, :2] = cosine, (1 - cosine**2) ** 0.5
    (tmp_path / PROBE_VECTORS_FILE).write_text(probe.to_json())
    code, output = command(tmp_path, monkeypatch, capsys, "--query", "up")
    if cosine == 1:
        assert code == 0
        return
    assert code == 3
    assert "has cosine 0.90000" in output
    assert output.count("\n") == 1


def test_the_command_says_that_a_corpus_is_empty(tmp_path, monkeypatch, capsys):
    write_vectors(tmp_path, PIN, [])
    code, output = command(tmp_path, monkeypatch, capsys, "--query", "up")
    assert code == 0
    assert f"no documents in {tmp_path}" in output


def test_the_command_without_a_corpus_is_one_line_and_exit_code_5(tmp_path, monkeypatch, capsys):
    code, output = command(tmp_path, monkeypatch, capsys, "--query", "up")
    assert code == 5
    assert output.count("\n") == 1
