"""Reading a shard wherever it is: whole or piece by piece, and what is said of a damaged one."""

from __future__ import annotations

import errno
import io
import re
import uuid

import pyarrow.parquet as pq
import pytest
from aiohttp import ClientPayloadError
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from encoder.errors import StorageError
from pipelines.corpus import shard_file
from pipelines.corpus.shard_file import ShardFile, damage_explained
from pipelines.corpus.shards import DATA, ShardName
from pipelines.errors import CorpusError
from pipelines.storage import Storage
from support.vectors import VectorRow, make_pin, make_space, write_vectors

PIN = make_pin(make_space(4))
ROWS = [VectorRow(f"d{number}", (number, 0, 0, 0)) for number in range(10)]


@pytest.fixture(params=["local", "remote", "remote and large"])
def shard(request, tmp_path, monkeypatch) -> tuple[Storage, ShardName]:
    (name,) = write_vectors(tmp_path, PIN, [ROWS])
    if request.param == "local":
        return Storage(str(tmp_path)), name
    if request.param == "remote and large":
        monkeypatch.setattr(shard_file, "_WHOLE_FILE_BYTES", 10)
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    storage.create(f"{DATA}/{name}", (tmp_path / DATA / str(name)).read_bytes())
    return storage, name


def damage(storage: Storage, name: ShardName, content: bytes) -> None:
    storage.replace(f"{DATA}/{name}", content)


def test_all_rows_come_in_order_in_batches_of_the_size_asked_for(shard):
    with ShardFile(*shard) as file:
        assert file.said()[1] == PIN.space
        batches = list(file.batches(["id"], batch_rows=4))
    assert [batch.num_rows for batch in batches] == [4, 4, 2]
    ids = [identity for batch in batches for identity in batch.column("id").to_pylist()]
    assert ids == [row.id for row in ROWS]


def test_a_file_that_is_gone_is_named(shard):
    storage, name = shard
    storage.delete(f"{DATA}/{name}")
    with pytest.raises(CorpusError, match=f"{storage.uri}/data/{name} is not there"):
        ShardFile(storage, name)


def test_a_file_that_is_no_parquet_file_is_named(shard):
    storage, name = shard
    damage(storage, name, b"PAR1 and then nothing of the kind")
    with pytest.raises(CorpusError, match=f"{name} is not readable"):
        ShardFile(storage, name)


def test_a_damaged_page_ends_the_reading_with_the_files_name(shard):
    storage, name = shard
    content = bytearray(storage.read(f"{DATA}/{name}") or b"")
    content[20] ^= 0xFF
    damage(storage, name, bytes(content))
    with (
        ShardFile(storage, name, verify_checksums=True) as file,
        pytest.raises(CorpusError, match=f"{name} is not readable"),
    ):
        list(file.batches(batch_rows=4))


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError("reset"), TimeoutError(), ClientPayloadError("not complete")],
    ids=repr,
)
def test_a_store_that_does_not_answer_is_no_damage(error):
    with (
        pytest.raises(StorageError, match="cannot read s3://b/data/x"),
        damage_explained("s3://b/data/x"),
    ):
        raise error


@pytest.mark.parametrize(
    ("kind", "request_"),
    [(MemoryFileSystem, "info"), (MemoryFileSystem, "cat_file"), (MemoryFile, "read")],
    ids=["its size", "all of it", "a piece"],
)
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EBUSY, "Please reduce your request rate."),
        OSError(errno.EINVAL, "Bad Request"),  # s3fs, of a HEAD with an expired token
        PermissionError("The provided token has expired."),
        OSError("Forbidden: b/x"),
        Exception("Service Unavailable, 503"),
    ],
    ids=repr,
)
def test_whatever_a_store_raises_when_it_is_asked_is_no_damage(
    tmp_path, monkeypatch, error, kind, request_
):
    (name,) = write_vectors(tmp_path, PIN, [ROWS])
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    storage.create(f"{DATA}/{name}", (tmp_path / DATA / str(name)).read_bytes())

    def refuse(*_: object, **__: object) -> None:
        raise error

    if kind is MemoryFile:
        monkeypatch.setattr(shard_file, "_WHOLE_FILE_BYTES", 10)
    monkeypatch.setattr(kind, request_, refuse)
    with pytest.raises(StorageError, match=f"cannot .*{name}: .*{re.escape(str(error))}; check"):
        ShardFile(storage, name)


@pytest.mark.parametrize(
    ("first_byte", "says"),
    [(b"\xe3", "is not readable: UnicodeDecodeError"), (b"b", "expected one column 'chunk_index'")],
)
def test_a_flipped_bit_of_a_columns_name_ends_the_reading_with_the_files_name(
    shard, first_byte, says
):
    storage, name = shard
    content = storage.read(f"{DATA}/{name}") or b""
    damage(storage, name, content.replace(b"chunk_index", first_byte + b"hunk_index"))
    with pytest.raises(CorpusError, match=f"{name} .*{says}"), ShardFile(storage, name) as file:
        list(file.batches(["id", "chunk_index"], batch_rows=4))


@pytest.mark.parametrize("entry", [b"twofold.shard", b"twofold.space"])
@pytest.mark.parametrize("value", [b"{", b"[1]", b"\xff", b'{"a": 1}'])
def test_a_footer_that_is_not_the_jobs_is_named(shard, entry, value):
    storage, name = shard
    table = pq.read_table(io.BytesIO(storage.read(f"{DATA}/{name}") or b""))
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, entry: value}), sink)
    damage(storage, name, sink.getvalue())
    with ShardFile(storage, name) as file, pytest.raises(CorpusError, match=str(name)):
        file.said()
