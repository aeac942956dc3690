"""Input larger than memory should need to be: it streams. Run with `make test-slow`.

The bound is on what a worker takes beyond a run over a few rows (582 MB: libraries and model). By
reading the code: 8 batches of 8 MiB of text wait for the forward and one is in each hand, as bytes,
as parsed rows and as str: 10 x 8 x 3 = 240 MiB. Measured: 138 MB for the row group and 68 MB for
the gzip. Either file held whole would take more than the bound.
"""

from __future__ import annotations

import gzip
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.embed_corpus import main
from support.jobs import arguments
from support.outputs import OutputFolder, write_jsonl

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

TEXT_BYTES = 16 * 1024
BEYOND_A_SMALL_RUN_BYTES = 240 * 2**20


def texts(count: int) -> Iterator[str]:
    """Yield texts of 16 KiB, all different, which hardly compress."""
    pool = " ".join(secrets.token_hex(4) for _ in range(400_000))
    for number in range(count):
        start = number * 7919 % (len(pool) - TEXT_BYTES)
        yield pool[start : start + TEXT_BYTES]


def peak_bytes(inputs: Path, output: Path, model: Path) -> int:
    """Embed and return the largest memory of the worker."""
    # Few tokens a text, and large shards: what is measured is the stream.
    more = ["--max-seq-length", "16", "--rows-per-shard", "10000"]
    assert main([*arguments(inputs, output, model), *more]) == 0
    report = OutputFolder(output).json("_report.json")
    return int(report["peak_rss_bytes"])


@pytest.fixture(scope="module")
def small_run_bytes(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, ray_cluster: None
) -> int:
    folder = tmp_path_factory.mktemp("small")
    write_jsonl(folder / "in" / "a.jsonl", prefix="a", rows=20)
    return peak_bytes(folder / "in", folder / "out", tiny_model)


def test_a_row_group_of_300_megabytes_streams(
    tmp_path: Path, tiny_model: Path, small_run_bytes: int
):
    rows = 300_000_000 // TEXT_BYTES
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a.parquet"
    table = pa.table({"id": [str(row) for row in range(rows)], "text": list(texts(rows))})
    pq.write_table(table, file, row_group_size=rows, compression="none", use_dictionary=False)
    del table
    metadata = pq.read_metadata(file)
    assert metadata.num_row_groups == 1
    assert metadata.row_group(0).total_byte_size > 299_000_000

    try:
        peak = peak_bytes(tmp_path / "in", tmp_path / "out", tiny_model)
    finally:
        file.unlink()

    assert OutputFolder(tmp_path / "out").json("_index.json")["totals"]["rows"] == rows
    assert peak - small_run_bytes < BEYOND_A_SMALL_RUN_BYTES


def test_a_gzip_of_a_gigabyte_streams(tmp_path: Path, tiny_model: Path, small_run_bytes: int):
    rows = 2**30 // TEXT_BYTES
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a.jsonl.gz"
    # Stored, not deflated: the file itself is a gigabyte, and is written in seconds.
    with gzip.open(file, "wb", compresslevel=0) as sink:
        for row, text in enumerate(texts(rows)):
            sink.write(json.dumps({"id": str(row), "text": text}).encode() + b"\n")
    assert file.stat().st_size > 2**30

    try:
        peak = peak_bytes(tmp_path / "in", tmp_path / "out", tiny_model)
    finally:
        file.unlink()

    assert OutputFolder(tmp_path / "out").json("_index.json")["totals"]["rows"] == rows
    assert peak - small_run_bytes < BEYOND_A_SMALL_RUN_BYTES
