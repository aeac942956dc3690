"""Whether (id, chunk_index) is unique, for more rows than fit into memory."""

from __future__ import annotations

import errno
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFile

from encoder.errors import StorageError
from pipelines.corpus import ids as ids_module
from pipelines.corpus.ids import DuplicateId, find_duplicate_ids
from pipelines.corpus.shards import DATA, ShardName, serialize_shard
from pipelines.errors import CorpusError
from pipelines.storage import Storage
from support.corpora import a_footer, a_shard_table
from support.fake_encoder import SPACE


class Corpus:
    """Shards of one output folder, with chosen ids."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.names: list[ShardName] = []
        self.rows = 0

    def add(self, ids: Sequence[str], chunks: Sequence[int] | None = None) -> str:
        name = ShardName("a" * 32, len(self.names), last=False)
        data = serialize_shard(a_shard_table(ids, chunks), a_footer(), SPACE)
        self.storage.create(f"{DATA}/{name}", data)
        self.names.append(name)
        self.rows += len(ids)
        return str(name)

    def duplicates(self, most: int = 10) -> list[DuplicateId]:
        return find_duplicate_ids(
            self.storage, self.names, id_column="id", rows=self.rows, most=most
        )


@pytest.fixture(params=[4_000_000, 7], ids=["one part", "many parts"])
def corpus(request, tmp_path, monkeypatch) -> Corpus:
    monkeypatch.setattr(ids_module, "_HASHES_PER_PART", request.param)
    return Corpus(Storage(str(tmp_path)))


def test_ids_that_differ_are_no_duplicates(corpus):
    corpus.add([f"a{n}" for n in range(50)])
    corpus.add([f"b{n}" for n in range(50)])
    assert corpus.duplicates() == []


def test_only_a_few_shards_are_hashed_before_they_are_wanted(corpus, monkeypatch):
    for number in range(100):
        corpus.add([f"a{number}"])
    hashed: list[str] = []
    hashes = ids_module._hashes

    def noted(storage: Storage, name: ShardName, id_column: str) -> np.ndarray:
        hashed.append(str(name))
        return hashes(storage, name, id_column)

    monkeypatch.setattr(ids_module, "_hashes", noted)
    each = ids_module._hashes_of_all(corpus.storage, corpus.names, "id")
    next(each)
    time.sleep(0.2)
    assert 0 < len(hashed) < 30
    assert len(list(each)) == 99


def test_no_shards_have_no_duplicates(corpus):
    assert corpus.duplicates() == []


def test_an_id_that_occurs_in_two_shards_is_found_with_both(corpus):
    first = corpus.add([f"a{n}" for n in range(50)])
    corpus.add(["c"])
    third = corpus.add(["b", "a7"])
    assert corpus.duplicates() == [("a7", 0, [first, third])]


def test_an_id_that_occurs_twice_in_one_shard_is_found(corpus):
    name = corpus.add(["x", "y", "x"])
    assert corpus.duplicates() == [("x", 0, [name])]


def test_chunks_of_one_document_are_no_duplicates_but_the_same_chunk_twice_is(corpus):
    first = corpus.add(["x", "x", "x"], chunks=[0, 1, 2])
    assert corpus.duplicates() == []
    second = corpus.add(["x"], chunks=[1])
    assert corpus.duplicates() == [("x", 1, [first, second])]


def test_an_id_that_ends_like_a_chunk_is_not_taken_for_one(corpus):
    corpus.add(["1:x", "x"], chunks=[0, 1])
    corpus.add(["0:1:x"], chunks=[0])
    assert corpus.duplicates() == []


def test_a_shard_whose_ids_cannot_be_read_is_named(corpus):
    corpus.add(["x"])
    name = corpus.add(["y"])
    path = corpus.storage.path(f"{DATA}/{name}")
    content = Path(path).read_bytes()
    Path(path).write_bytes(content.replace(b"chunk_index", b"\xe3hunk_index"))
    with pytest.raises(CorpusError, match=f"{name} is not readable: "):
        corpus.duplicates()


@pytest.mark.parametrize("error", [ConnectionError("store is down"), TimeoutError("no answer")])
def test_a_store_that_does_not_answer_is_no_damage(corpus, monkeypatch, error):
    corpus.add(["x"])

    def down(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ids_module.pq, "read_table", down)
    with pytest.raises(StorageError, match="cannot read"):
        corpus.duplicates()


def test_a_store_that_asks_to_slow_down_has_damaged_no_shard(monkeypatch):
    corpus = Corpus(Storage(f"memory://{uuid.uuid4().hex}"))
    corpus.add(["x"])

    def refuse(*_: object) -> None:
        raise OSError(errno.EBUSY, "Please reduce your request rate.")

    monkeypatch.setattr(MemoryFile, "read", refuse)
    with pytest.raises(StorageError, match=r"cannot read .*request rate\.; check"):
        corpus.duplicates()


@pytest.mark.parametrize("different_hashes", [1, 3])
def test_a_collision_of_hashes_is_never_reported(corpus, monkeypatch, different_hashes):
    monkeypatch.setattr(ids_module, "_hash", lambda key: len(key[0]) % different_hashes)
    corpus.add(["x", "yy", "zzz", "uuuu"])
    assert corpus.duplicates() == []
    corpus.add(["yy"])
    assert [found[0] for found in corpus.duplicates()] == ["yy"]


def test_the_first_duplicates_are_returned_and_no_more_than_asked_for(corpus):
    corpus.add([f"{n}" for n in range(30)])
    corpus.add([f"{n}" for n in range(30)])
    assert [identity for identity, _, _ in corpus.duplicates(most=3)] == ["0", "1", "2"]


def test_an_id_as_large_as_a_text_is_compared_whole_and_returned_cut(corpus):
    name = corpus.add(["x" * 10**6, "x" * 10**6 + "y", "x" * 10**6])
    assert corpus.duplicates() == [("x" * 200, 0, [name])]


def test_when_all_ids_are_doubled_only_some_are_looked_up(corpus, monkeypatch):
    monkeypatch.setattr(ids_module, "_MOST_SUSPECTS", 5)
    corpus.add([f"{n}" for n in range(100)])
    corpus.add([f"{n}" for n in range(100)])
    assert 1 <= len(corpus.duplicates(most=10)) <= 5
