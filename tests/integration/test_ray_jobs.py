"""`ray job submit` on a running cluster, input and output on S3, the result read without Ray."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from encoder.encoder import load_encoder
from encoder.model.mirror import mirror
from encoder.settings import EncoderSettings
from support.jobs import MODULE, arguments
from support.processes import Finished
from support.ray_nodes import RayNodes
from support.s3_store import S3Store

pytestmark = pytest.mark.integration

TEXTS = {f"{n}": f"Document {n} is about {'this and ' * (n % 9)}that." for n in range(60)}


@pytest.fixture(scope="module")
def nodes(s3_store: S3Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    """A cluster of one node that knows the store and nothing of this repository."""
    environment = {**s3_store.address.environment(), "PYTHONPATH": ""}
    with RayNodes(tmp_path_factory.mktemp("nodes"), environment) as nodes:
        nodes.start_head(num_cpus=2)
        yield nodes


@pytest.fixture(scope="module")
def output(s3_store: S3Store) -> str:
    return f"{s3_store.fresh_prefix()}/vectors"


@pytest.fixture(scope="module")
def model(s3_store: S3Store, tiny_model: Path) -> str:
    """The model, mirrored into the store that every node reaches."""
    uri = f"{s3_store.fresh_prefix()}/tiny"
    mirror(EncoderSettings(model=str(tiny_model)), uri)
    return uri


@pytest.fixture(scope="module")
def submitted(nodes: RayNodes, s3_store: S3Store, output: str, model: str) -> Finished:
    """A job over a Parquet file and a gzipped file of JSON lines."""
    source = s3_store.fresh_prefix()
    rows = [{"id": name, "text": text, "even": int(name) % 2 == 0} for name, text in TEXTS.items()]
    with fsspec.open(f"{source}/a.parquet", "wb") as file:
        pq.write_table(pa.Table.from_pylist(rows[:30]), file)
    lines = "".join(json.dumps(row) + "\n" for row in rows[30:])
    with fsspec.open(f"{source}/b.jsonl.gz", "wb") as file:
        file.write(gzip.compress(lines.encode()))
    more = ["--columns", "even", "--dtype", "float32"]
    return nodes.submit(sys.executable, "-m", MODULE, *arguments(source, output, model), *more)


def test_a_submitted_job_succeeds_and_shows_its_account(submitted: Finished):
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "rows out" in submitted.stdout
    assert "succeeded" in submitted.stdout


@pytest.fixture
def reference(tiny_model: Path) -> dict[str, np.ndarray]:
    """The vectors that the encoder gives when it is called directly."""
    encoder = load_encoder(EncoderSettings(model=str(tiny_model), backend="torch", dtype="float32"))
    return dict(zip(TEXTS, encoder.encode_documents(list(TEXTS.values())), strict=True))


def read_with_pyarrow(output: str) -> dict[str, list[float]]:
    filesystem, path = fsspec.core.url_to_fs(output)
    table = ds.dataset(f"{path}/data", filesystem=filesystem, format="parquet").to_table()
    assert table.schema.field("even").type == pa.bool_()
    return dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))


def read_with_duckdb(output: str) -> dict[str, list[float]]:
    with duckdb.connect() as connection:
        connection.register_filesystem(fsspec.filesystem("s3"))
        rows = connection.execute(
            f"select id, embedding from read_parquet('{output}/data/*.parquet') where n_tokens > 0"
        ).fetchall()
    return dict(rows)


def read_with_pandas(output: str) -> dict[str, list[float]]:
    filesystem, path = fsspec.core.url_to_fs(output)
    files = [f"s3://{name}" for name in filesystem.glob(f"{path}/data/*.parquet")]
    frame = pd.concat([pd.read_parquet(file) for file in files])
    return dict(zip(frame["id"], frame["embedding"], strict=True))


@pytest.mark.usefixtures("submitted")
@pytest.mark.parametrize("read", [read_with_pyarrow, read_with_duckdb, read_with_pandas])
def test_the_result_is_read_without_ray_and_equals_the_encoders(read, output, reference):
    found = read(output)
    assert sorted(found) == sorted(reference)
    cosines = [float(np.dot(np.asarray(found[name]), reference[name])) for name in reference]
    assert min(cosines) >= 0.9999


@pytest.mark.usefixtures("submitted")
def test_local_folders_are_refused_on_a_cluster_of_two_nodes(
    nodes: RayNodes, model: str, tmp_path: Path
):
    (tmp_path / "a.txt").write_text("one line\n")
    joined = nodes.add_node(num_cpus=1)

    given = arguments(tmp_path / "a.txt", tmp_path / "out", model)
    finished = nodes.submit(sys.executable, "-m", MODULE, *given)

    joined.kill_tree()
    assert finished.returncode != 0
    assert "a cluster of 2 nodes, found a local folder" in finished.stdout
    assert "Traceback" not in finished.stdout
    assert not list(tmp_path.glob("out/data/*"))
