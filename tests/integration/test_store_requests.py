"""What a plan says a run asks of an object store is what a run asks of it."""

from __future__ import annotations

import io
import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from pipelines.actor import unit_embedder
from pipelines.actor.events import Ending
from pipelines.actor.unit_embedder import UnitEmbedder
from pipelines.capacity.store_requests import store_requests
from pipelines.corpus.index import published_index
from pipelines.corpus.pin import pin_output
from pipelines.corpus.shards import DATA
from pipelines.driver.publisher import Publisher
from pipelines.driver.report import REPORT_FILE, RunReport
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources
from pipelines.storage import Storage
from support.corpora import a_job
from support.fake_encoder import FakeEncoder
from support.lossy_proxy import LossyProxy
from support.s3_store import S3Store

pytestmark = pytest.mark.integration

ROWS_PER_SHARD = 3


def write_files(store: S3Store, root: str, *, files: int, rows: int, suffix: str) -> int:
    """Put files of as many rows; return their bytes."""
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    total = 0
    for file in range(files):
        ids = [f"{file}-{row}" for row in range(rows)]
        if suffix == "parquet":
            sink = io.BytesIO()
            pq.write_table(pa.table({"id": ids, "text": ids}), sink)
            data = sink.getvalue()
        else:
            data = "".join(f'{{"id": "{name}", "text": "{name}"}}\n' for name in ids).encode()
        total += len(data)
        store.client().put_object(Bucket=bucket, Key=f"{prefix}/in/{file}.{suffix}", Body=data)
    return total


def run_in_this_process(root: str) -> tuple[int, int]:
    """Do what `twofold embed` does, but for Ray; return units and shards."""
    storage, job = Storage(f"{root}/out"), a_job(f"{root}/out", rows_per_shard=ROWS_PER_SHARD)
    sources = list_sources([f"{root}/in"], None)
    units = plan_units(sources, unit_bytes=10**6, tolerate_unreadable=False)
    storage.sizes(DATA)
    storage.probe_exclusive_create()
    pin_output(storage, job.pin)
    assert published_index(storage) is None
    embedder = UnitEmbedder(job)
    shards = 0
    for unit in units:
        *written, ending = embedder.events(unit)
        assert ending.ending is Ending.DONE
        shards += len(written)
    settings = EmbedCorpusSettings(input=(f"{root}/in",), output=storage.uri)
    report = RunReport(job.run_id, "", storage.uri, len(units), 0)
    by_key = {unit.key: unit for unit in units}
    assert Publisher(settings, storage, job.pin, by_key, [], report).publish() == []
    storage.replace(REPORT_FILE, report.to_json().encode())
    return len(units), shards


def test_a_file_is_read_by_one_request_however_large_it_is(
    s3_store: S3Store,
    lossy_proxy: LossyProxy,
    fresh_clients: None,
    monkeypatch: pytest.MonkeyPatch,
):
    """By ranges it could be of two versions: _index.json is replaced while others read it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", lossy_proxy.endpoint)
    monkeypatch.setattr(S3FileSystem, "default_block_size", 1000)  # else a range is 50 MB
    storage, content = Storage(s3_store.fresh_prefix()), bytes(range(256)) * 100
    storage.replace("_index.json", content)
    lossy_proxy.log.clear()
    assert storage.read("_index.json") == content
    assert by_kind(lossy_proxy.log) == {"GET": 1}


def by_kind(log: list[tuple[str, str]]) -> Counter[str]:
    return Counter("LIST" if "list-type=2" in path else method for method, path in log)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(("files", "rows"), [(1, 3), (1, 12), (4, 6)])
def test_a_run_asks_what_the_plan_says(
    s3_store: S3Store,
    lossy_proxy: LossyProxy,
    fresh_clients: None,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    files: int,
    rows: int,
):
    root = s3_store.fresh_prefix()
    size = write_files(s3_store, root, files=files, rows=rows, suffix=suffix)
    monkeypatch.setenv("AWS_ENDPOINT_URL", lossy_proxy.endpoint)
    monkeypatch.setattr(unit_embedder, "load_encoder", lambda settings: FakeEncoder())
    units, shards = run_in_this_process(root)
    found = by_kind(lossy_proxy.log)
    expected = store_requests(
        files=files,
        parquet_files=files if suffix == "parquet" else 0,
        input_bytes=size,
        units=units,
        shards=shards,
    )
    assert {
        "PUT": found["PUT"],
        "GET": found["GET"],
        "HEAD": found["HEAD"],
        "LIST": found["LIST"],
    } == {
        "PUT": expected.put,
        "GET": expected.get,
        "HEAD": expected.head,
        "LIST": expected.listing,
    }, os.linesep.join(map(str, lossy_proxy.log))
