"""The one door to the output folder: exclusive creation, atomic replacement, clear errors."""

from __future__ import annotations

import os
import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import fsspec
import pytest
from botocore.exceptions import ClientError
from fsspec.implementations.memory import MemoryFileSystem

from encoder.errors import StorageError
from pipelines import storage as storage_module
from pipelines.storage import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path) -> Storage:
    is_local = request.param == "local"
    return Storage(str(tmp_path / "out") if is_local else f"memory://{uuid.uuid4().hex}/out")


def with_filesystem(fs: fsspec.AbstractFileSystem) -> Storage:
    storage = Storage("memory://bucket/out")
    storage.__dict__["_located"] = (fs, f"/{uuid.uuid4().hex}")
    return storage


class Overwriting(MemoryFileSystem):
    """A store that ignores If-None-Match."""

    cachable = False

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value)


class Lossy(MemoryFileSystem):
    """A store of which some replies are lost: the request arrives, or it does not."""

    cachable = False

    def __init__(self, *, arrives: bool) -> None:
        super().__init__()
        self.arrives = arrives
        self.losses = 1

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if not self.losses or self.arrives:
            super().pipe_file(path, value, mode)
        if self.losses:
            self.losses -= 1
            raise OSError(5, "connection reset\nby peer")


def test_a_file_is_created_once_and_keeps_its_first_content(storage):
    assert storage.create("data/a", b"first")
    assert not storage.create("data/a", b"second")
    assert storage.read("data/a") == b"first"


def test_of_threads_that_create_one_name_exactly_one_wins(tmp_path):
    storage, together = Storage(str(tmp_path / "out")), Barrier(8)

    def create(number: int) -> bool:
        together.wait()
        return storage.create("data/a", f"{number}".encode() * 100_000)

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))
        assert won.count(True) == 1
        assert storage.read("data/a") == f"{won.index(True)}".encode() * 100_000
        storage.delete("data/a")


def test_a_crash_between_the_temporary_file_and_its_name_leaves_no_shard(tmp_path, monkeypatch):
    class PowerCut(BaseException):
        pass

    def cut(*_: object, **__: object) -> None:
        raise PowerCut

    storage = Storage(str(tmp_path))
    monkeypatch.setattr(os, "link", cut)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # a dead process cleans up nothing
    with pytest.raises(PowerCut):
        storage.create("data/a.parquet", b"whole")
    monkeypatch.undo()
    assert storage.read("data/a.parquet") is None
    assert all(name.startswith(".") for name in storage.sizes("data"))
    assert storage.create("data/a.parquet", b"whole")


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        Storage(str(tmp_path)).create("data/a", b"whole")
    assert list((tmp_path / "data").iterdir()) == []


def test_replacing_a_file_leaves_the_old_content_or_the_new(storage):
    storage.replace("index", b"old")
    storage.replace("index", b"new")
    assert storage.read("index") == b"new"


def test_who_reads_while_a_file_is_replaced_reads_the_old_one_whole(tmp_path):
    storage = Storage(str(tmp_path))
    storage.replace("index", b"the old one, longer")
    with storage.open("index") as file:
        storage.replace("index", b"new")
        assert file.read() == b"the old one, longer"


def test_a_replacement_that_breaks_off_leaves_the_old_content(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    storage = Storage(str(tmp_path))
    storage.replace("index", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError):
        storage.replace("index", b"new")
    assert storage.read("index") == b"old"
    assert storage.sizes("") == {"index": 3}


def test_a_folder_is_listed_by_prefix_with_sizes(storage):
    for name in ("b2", "a1", "a22", "c"):
        storage.create(f"data/{name}", name.encode())
    storage.create("other/a", b"elsewhere")
    storage.create("data/moved/a3", b"away")
    assert storage.sizes("data") == {"a1": 2, "a22": 3, "b2": 2, "c": 1}
    assert list(storage.sizes("data")) == ["a1", "a22", "b2", "c"]
    assert storage.sizes("data", prefix="a") == {"a1": 2, "a22": 3}
    assert storage.sizes("nowhere") == {}


def test_a_missing_file_reads_as_none_and_deletes_without_error(storage):
    assert storage.read("data/none") is None
    assert not storage.exists("data/none")
    storage.delete("data/none")


def test_a_store_that_creates_exclusively_passes_the_probe_and_keeps_no_trace(storage):
    storage.probe_exclusive_create()
    assert storage.sizes("") == {}


def test_a_store_that_overwrites_is_refused():
    storage = with_filesystem(Overwriting())
    with pytest.raises(StorageError, match="does not honour exclusive creation"):
        storage.probe_exclusive_create()
    assert storage.sizes("") == {}


def test_a_store_that_overwrites_is_refused_also_when_its_reply_is_lost(monkeypatch):
    storage = with_filesystem(Overwriting())
    create = Storage.create
    monkeypatch.setattr(Storage, "create", lambda *arguments: create(*arguments) and False)
    with pytest.raises(StorageError, match="does not honour exclusive creation"):
        storage.probe_exclusive_create()


def test_a_lost_reply_to_the_probe_is_no_reason_to_refuse_the_store():
    with_filesystem(Lossy(arrives=True)).probe_exclusive_create()


def test_the_probe_shows_the_error_of_the_write_not_of_the_cleaning_up(monkeypatch):
    storage = with_filesystem(Lossy(arrives=False))

    def denied(_: str) -> None:
        raise PermissionError("no deletes")

    monkeypatch.setattr(storage.fs, "rm_file", denied)
    with pytest.raises(StorageError, match="could not be written: OSError"):
        storage.probe_exclusive_create()


def test_a_lost_reply_reads_as_existing_and_the_content_is_there():
    storage = with_filesystem(Lossy(arrives=True))
    assert not storage.create("data/a", b"content")
    assert storage.read("data/a") == b"content"


def test_a_write_that_never_arrived_is_an_error_of_one_line_that_names_the_file():
    storage = with_filesystem(Lossy(arrives=False))
    with pytest.raises(StorageError) as raised:
        storage.create("data/a", b"content")
    assert "memory://bucket/out/data/a" in str(raised.value)
    assert "connection reset by peer" in str(raised.value)
    assert "\n" not in str(raised.value)


class Conflicting(MemoryFileSystem):
    """A store that refuses uploads as AWS does those that meet another one; s3fs makes it EIO."""

    cachable = False

    def __init__(self, *, conflicts: int, winner: bytes | None = None) -> None:
        super().__init__()
        self.conflicts, self.winner = conflicts, winner

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        self.conflicts -= 1
        if self.conflicts < 0:
            return super().pipe_file(path, value, mode)
        if self.winner is not None:
            super().pipe_file(path, self.winner, mode)
        answer = {"Error": {"Code": "ConditionalRequestConflict", "Message": "a conflict"}}
        raise OSError(5, "a conflict") from ClientError(answer, "PutObject")


@pytest.fixture
def waits_s(monkeypatch) -> list[float]:
    """How long was slept, instead of doing it."""
    slept: list[float] = []
    monkeypatch.setattr(storage_module.time, "sleep", slept.append)
    return slept


def test_an_upload_that_met_another_one_which_failed_is_tried_again(waits_s):
    storage = with_filesystem(Conflicting(conflicts=2))
    assert storage.create("data/a", b"content")
    assert storage.read("data/a") == b"content"
    assert waits_s == [1, 1]


def test_an_upload_that_met_another_one_which_won_is_not_tried_again(waits_s):
    storage = with_filesystem(Conflicting(conflicts=1, winner=b"theirs"))
    assert not storage.create("data/a", b"ours")
    assert storage.read("data/a") == b"theirs"
    assert waits_s == []


def test_an_upload_that_meets_others_for_ever_is_an_error(waits_s):
    with pytest.raises(StorageError, match=r"could not be written: .*a conflict"):
        with_filesystem(Conflicting(conflicts=100)).create("data/a", b"content")
    assert len(waits_s) == 2


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("cat_file", lambda storage: storage.read("a")),
        ("open", lambda storage: storage.open("a")),
        ("info", lambda storage: storage.size("a")),
        ("find", lambda storage: storage.sizes("")),
        ("pipe_file", lambda storage: storage.create("a", b"x")),
        ("pipe_file", lambda storage: storage.replace("a", b"x")),
        ("exists", lambda storage: storage.exists("a")),
        ("rm_file", lambda storage: storage.delete("a")),
    ],
)
def test_whatever_a_client_raises_is_one_line_that_names_the_file_and_says_what_to_check(
    monkeypatch, method, call
):
    class HttpError(Exception):
        """gcsfs' for 429 and 5xx; azure-core's are no OSErrors either."""

    storage = with_filesystem(Overwriting())

    def refuse(*_: object, **__: object) -> None:
        raise HttpError("Service Unavailable,\n503")

    monkeypatch.setattr(storage.fs, method, refuse)
    with pytest.raises(
        StorageError, match=r"memory://bucket/out.*HttpError: Service Unav"
    ) as error:
        call(storage)
    assert "the credentials or the role" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_machine_without_memory_is_not_the_fault_of_the_store(monkeypatch):
    storage = with_filesystem(Overwriting())

    def exhaust(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(storage.fs, "pipe_file", exhaust)
    with pytest.raises(MemoryError):
        storage.create("a", b"x")


def test_a_file_that_is_gone_when_it_is_asked_for_its_size_is_no_outage(storage):
    with pytest.raises(FileNotFoundError):
        storage.size("a")
    storage.create("a", b"four")
    assert storage.size("a") == 4


def test_a_disk_that_refuses_is_not_asked_for_credentials(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match="check that it may be read") as error:
        Storage(str(tmp_path)).read("a")
    assert "AWS" not in str(error.value)


def test_an_unknown_protocol_is_one_clear_line():
    with pytest.raises(StorageError, match=r"cannot reach nonsense://x: .*nonsense"):
        Storage("nonsense://x").sizes("data")


def test_a_path_and_its_file_uri_are_one_local_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uris = {Storage(uri).uri for uri in ("out", "./out/", f"file://{tmp_path}/out")}
    assert uris == {f"{tmp_path}/out"}
    assert Storage("out").is_local
    assert not Storage("s3://bucket/out/").is_local
    assert Storage("s3://bucket/out/").uri == "s3://bucket/out"


def test_two_colons_in_a_folders_name_make_it_no_other_folder(tmp_path):
    for root in (str(tmp_path / "vec"), f"memory://{uuid.uuid4().hex}/vec"):
        plain, second, third = (Storage(root + name) for name in ("", "::v2", "::v3"))
        second.create("x", b"of v2")
        assert (plain.read("x"), second.read("x"), third.read("x")) == (None, b"of v2", None)
    assert (tmp_path / "vec::v2/x").exists()


def test_a_storage_travels_as_its_uri_alone(storage):
    storage.create("a", b"x")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"x"
    assert len(pickle.dumps(storage)) < 500


def test_a_local_listing_is_whole_while_others_write_and_their_temporary_files_vanish(tmp_path):
    storage = Storage(str(tmp_path))
    for number in range(20):
        storage.create(f"data/{number}", b"x")
    done = threading.Event()

    def write() -> None:
        for number in range(300):
            storage.create(f"data/new-{number}", b"x")
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    lengths = []
    while not done.is_set():
        lengths.append(len(storage.sizes("data")))
    writer.join()
    assert min(lengths) >= 20
    assert not any(name.startswith(".") for name in storage.sizes("data"))
