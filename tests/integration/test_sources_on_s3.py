"""Listing, versions and reading on a real S3 store."""

from __future__ import annotations

import gzip
import json
import os

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoder.errors import InvalidInputError, StorageError
from pipelines.errors import SourceChangedError
from pipelines.source.column_inference import infer_columns
from pipelines.source.documents import read_documents
from pipelines.source.plan import plan_units
from pipelines.source.readers.files import guarded, open_parquet
from pipelines.source.sources import current_version, list_sources

pytestmark = pytest.mark.integration

ROWS = [{"id": number, "text": f"text {number}"} for number in range(3000)]


@pytest.fixture
def folder(s3_store, request):
    """A folder of the store with one file of each kind and what Spark leaves beside them."""
    uri = f"s3://{s3_store.bucket}/{request.node.name}"
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=500)
    fs.pipe_file(f"{uri}/lang=en/a.parquet", sink.getvalue().to_pybytes())
    fs.pipe_file(f"{uri}/lang=de/b.jsonl", lines)
    fs.pipe_file(f"{uri}/lang=de/c.jsonl.gz", gzip.compress(lines))
    fs.pipe_file(f"{uri}/_SUCCESS", b"")
    return uri


def test_every_file_reads_the_same_from_the_store(folder):
    sources = list_sources([folder], None)
    assert [source.uri.removeprefix(folder) for source in sources] == [
        "/lang=de/b.jsonl",
        "/lang=de/c.jsonl.gz",
        "/lang=en/a.parquet",
    ]
    columns = infer_columns(sources, id_column="id", text_columns=("text",), pass_through=())
    units = plan_units(sources, unit_bytes=30_000, tolerate_unreadable=False)
    assert len(units) > len(sources)
    found = [
        (source.uri, row["id"], text, row["lang"])
        for source in sources
        for unit in units
        if unit.source == source
        for batch in read_documents(unit, columns)
        for row, text in zip(batch.carried.to_pylist(), batch.texts, strict=True)
    ]
    assert found == [
        (source.uri, row["id"], row["text"], dict(source.partition)["lang"])
        for source in sources
        for row in ROWS
    ]


def test_patterns_find_the_same_files(folder):
    assert len(list_sources([f"{folder}/**/*.jsonl*"], None)) == 2
    assert len(list_sources([f"{folder}/lang=*"], None)) == 3
    assert len(list_sources([f"{folder}/lang=e?/[a-c].parquet"], None)) == 1


def test_the_version_is_the_etag_and_a_rewritten_object_has_another(folder):
    (source,) = list_sources([f"{folder}/lang=de/b.jsonl"], None)
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    assert source.version == fs.info(source.uri)["ETag"].strip('"')
    assert current_version(source.uri) == (source.version, source.size_bytes)
    fs.pipe_file(source.uri, b'{"id": 1, "text": "other"}\n')
    assert current_version(source.uri)[0] != source.version


def test_an_object_that_is_deleted_before_it_is_read_is_a_changed_source(folder):
    sources = list_sources([f"{folder}/lang=en/a.parquet"], None)
    columns = infer_columns(sources, id_column="id", text_columns=("text",), pass_through=())
    (unit,) = plan_units(sources, unit_bytes=10**9, tolerate_unreadable=False)
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    fs.rm_file(sources[0].uri)
    with pytest.raises(SourceChangedError):
        list(read_documents(unit, columns))


def test_an_object_that_is_replaced_while_it_is_read_is_a_changed_source(folder):
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    sink = pa.BufferOutputStream()
    # Larger than the first read of its end, which holds the footer.
    pq.write_table(pa.table({"text": [os.urandom(1000).hex() for _ in range(2000)]}), sink)
    fs.pipe_file(f"{folder}/large.parquet", sink.getvalue().to_pybytes())
    (source,) = list_sources([f"{folder}/large.parquet"], None)
    with open_parquet(source) as file:
        fs.pipe_file(source.uri, bytes(source.size_bytes))
        with pytest.raises(SourceChangedError):
            list(guarded(file.iter_batches(), source.uri, lambda batch: batch.num_rows))


@pytest.mark.parametrize(
    "uri", ["s3://twofold/nothing/here", "s3://twofold/nothing/*.jsonl", "s3://no-such-bucket/docs"]
)
def test_nothing_at_a_uri_is_one_clear_line(s3_store, uri):
    with pytest.raises(InvalidInputError) as error:
        list_sources([uri], None)
    assert uri in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_one_clear_line(folder, monkeypatch, fresh_clients, name):
    monkeypatch.setenv(name, "wrong")
    with pytest.raises(StorageError, match="credentials") as error:
        list_sources([folder], None)
    assert "\n" not in str(error.value)


def test_no_credentials_at_all_are_one_clear_line(folder, monkeypatch, fresh_clients, tmp_path):
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="credentials") as error:
        list_sources([folder], None)
    assert "\n" not in str(error.value)
