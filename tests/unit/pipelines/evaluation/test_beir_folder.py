"""What a dataset says is read as it is; what is wrong with one is one line, before all else."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoder.errors import InvalidInputError
from pipelines.evaluation import beir_folder
from pipelines.evaluation.beir_folder import read_beir_folder
from support.beir import CORPUS, QUERIES, evaluation_data, write_beir


def refusal(folder, split="test") -> str:
    with pytest.raises(InvalidInputError) as caught:
        read_beir_folder(str(folder), split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_judged_queries_are_kept_and_everything_is_counted(tmp_path):
    dataset = read_beir_folder(str(write_beir(tmp_path / "pets")), "test")
    assert dataset.name == "pets"
    assert dict(dataset.queries) == {"q1": "what purrs", "q2": "what swims"}
    assert dataset.qrels == {"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 2}}
    assert (dataset.documents, dataset.empty_documents, dataset.judgements) == (3, 0, 3)
    assert dataset.columns.text_columns == ("title", "text")


def test_a_compressed_corpus_and_a_parquet_folder_read_the_same(tmp_path):
    plain = read_beir_folder(str(write_beir(tmp_path / "plain")), "test")
    packed = write_beir(tmp_path / "packed")
    data = (packed / "corpus.jsonl").read_bytes()
    (packed / "corpus.jsonl").unlink()
    (packed / "corpus.jsonl.gz").write_bytes(gzip.compress(data))
    parquet = write_beir(tmp_path / "parquet")
    (parquet / "corpus.jsonl").unlink()
    (parquet / "queries.jsonl").unlink()
    (parquet / "corpus").mkdir()
    for number, row in enumerate(CORPUS):
        pq.write_table(pa.Table.from_pylist([row]), parquet / "corpus" / f"{number}.parquet")
    pq.write_table(pa.Table.from_pylist(QUERIES), parquet / "queries.parquet")
    for folder in (packed, parquet):
        dataset = read_beir_folder(str(folder), "test")
        assert (dataset.queries, dataset.qrels) == (plain.queries, plain.qrels)
        assert (dataset.documents, dataset.columns) == (plain.documents, plain.columns)


def test_a_corpus_without_titles_and_with_plain_ids_is_read(tmp_path):
    corpus = [{"id": number, "text": f"text {number}"} for number in range(3)]
    folder = write_beir(tmp_path / "d", corpus=corpus, qrels=["q1\t0\t1"])
    dataset = read_beir_folder(str(folder), "test")
    assert (dataset.columns.id_column, dataset.columns.text_columns) == ("id", ("text",))


def test_a_query_is_its_text_alone_whatever_else_its_row_holds(tmp_path):
    queries = [{**row, "title": "a topic"} for row in QUERIES]
    dataset = read_beir_folder(str(write_beir(tmp_path / "d", queries=queries)), "test")
    assert dict(dataset.queries) == {"q1": "what purrs", "q2": "what swims"}


def test_documents_without_a_text_are_counted_and_may_be_judged(tmp_path):
    corpus = [*CORPUS, {"_id": "d4", "title": "", "text": " "}]
    folder = write_beir(tmp_path / "d", corpus=corpus, qrels=["q1\td4\t1"])
    dataset = read_beir_folder(str(folder), "test")
    assert (dataset.documents, dataset.empty_documents) == (3, 1)


def test_an_empty_query_that_nobody_judged_stops_nothing(tmp_path):
    folder = write_beir(tmp_path / "d", queries=[*QUERIES, {"_id": "q9", "text": " "}])
    assert list(read_beir_folder(str(folder), "test").queries) == ["q1", "q2"]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"corpus": [*CORPUS, CORPUS[0]]}, "corpus.jsonl, row 4: id 'd1' stood before"),
        ({"queries": [*QUERIES, QUERIES[0]]}, "row 4: id 'q1' stood before"),
        ({"queries": [{"_id": "q1", "text": " "}]}, "row 1: query 'q1' is empty"),
        ({"queries": [*QUERIES[1:], {"_id": "q1"}]}, "row 3: query 'q1' is empty"),
        ({"queries": [*QUERIES, {"text": "no id"}]}, "row 4: id is missing"),
        ({"queries": [*QUERIES, {"_id": "q9", "text": 5}]}, "row 4: text is not a string"),
        ({"corpus": [*CORPUS, {"text": "no id"}]}, "row 4: id is missing"),
        ({"corpus": [{"_id": "d1", "body": "no text"}]}, "'text'"),
        ({"qrels": ["q1\td1\t1", "q7\td1\t1"]}, "judged queries 'q7' (1) are not in"),
        ({"qrels": ["q1\td7\t1"]}, "judged documents 'd7' (1) are not in"),
        ({"qrels": []}, "expected judgements, found none"),
    ],
)
def test_a_broken_dataset_is_refused_in_one_line(tmp_path, broken, says):
    assert says in refusal(write_beir(tmp_path / "d", **broken))


def test_rows_are_counted_over_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(beir_folder, "_UNIT_BYTES", 60)
    folder = write_beir(tmp_path / "d", corpus=[*CORPUS, CORPUS[2]])
    assert "corpus.jsonl, row 4: id 'd3' stood before" in refusal(folder)


def test_a_line_that_is_no_json_is_refused(tmp_path):
    folder = write_beir(tmp_path / "d")
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "d4", "text": \n')
    assert "row 4: line is not valid JSON" in refusal(folder)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_beir(tmp_path / "d")
    (folder / name).unlink()
    assert name in refusal(folder)


def test_two_files_of_one_part_are_refused_rather_than_one_chosen(tmp_path):
    folder = write_beir(tmp_path / "d")
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(b""))
    assert "found corpus.jsonl, corpus.jsonl.gz" in refusal(folder)


def test_a_format_that_is_not_read_is_refused_with_what_can_be_done_here(tmp_path):
    folder = write_beir(tmp_path / "d")
    (folder / "queries.jsonl").rename(folder / "queries.tsv")
    message = refusal(folder)
    assert "queries.tsv: convert or rename these files" in message
    assert "where the command has that flag, give --input-format" in message


def test_another_split_than_there_is_names_those_there_are(tmp_path):
    assert "qrels/test.tsv" in refusal(write_beir(tmp_path / "d"), split="dev")


def test_no_folder_at_all_is_refused(tmp_path):
    assert "nothing" in refusal(tmp_path / "nowhere")


def test_scifact_has_what_its_authors_counted():
    folder = evaluation_data("scifact")
    dataset = read_beir_folder(str(folder), "test")
    assert (dataset.documents, dataset.empty_documents) == (5183, 0)
    assert (len(dataset.queries), dataset.judgements) == (300, 339)
    assert sum(map(len, dataset.queries.values())) == 27_104
    with gzip.open(folder / "corpus.jsonl.gz", "rt") as file:
        assert json.loads(file.readline())["_id"] == "4983"
