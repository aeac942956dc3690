"""The index is a summary of the shards' footers, rebuilt from them at any time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from encoder.errors import NewerFormatError
from pipelines.corpus import index as index_module
from pipelines.corpus.index import (
    INDEX_FILE,
    Index,
    IndexedShard,
    collect_shards,
    list_shards,
    read_index,
)
from pipelines.corpus.shards import DATA, ShardName
from pipelines.errors import CorpusError
from pipelines.storage import Storage
from support.corpora import a_source, a_unit, an_indexed_shard, write_shards
from support.fake_encoder import SPACE

A, B = a_unit(a_source("/in/a.jsonl")), a_unit(a_source("/in/b.jsonl"))
SHARDS = (
    an_indexed_shard(A, 0, last=False, rejected=1, documents=1, rows=4),
    an_indexed_shard(A, 1),
    an_indexed_shard(B, 0, unreadable=1),
)


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "out"))


def publish(storage: Storage, shards: Sequence[IndexedShard] = SHARDS) -> Index:
    """Write real shards and the index of them."""
    index = Index(SPACE.fingerprint, tuple(write_shards(storage, shards)), ids_checked=True)
    storage.replace(INDEX_FILE, index.to_json().encode())
    return index


def rebuilt(storage: Storage) -> Index:
    shards = collect_shards(storage, list_shards(storage))
    return Index(SPACE.fingerprint, tuple(shards.values()), ids_checked=True)


@pytest.fixture
def footers_read(monkeypatch) -> list[ShardName]:
    """The shards whose footers are read from here on."""
    names: list[ShardName] = []
    read = index_module.read_footer

    def recorded(storage: Storage, name: ShardName) -> object:
        names.append(name)
        return read(storage, name)

    monkeypatch.setattr(index_module, "read_footer", recorded)
    return names


def test_the_index_rebuilt_from_the_shards_is_the_published_one(storage):
    published = publish(storage)
    assert rebuilt(storage).to_json() == published.to_json()
    assert rebuilt(storage).to_json().encode() == storage.read(INDEX_FILE)


def test_each_shard_and_each_source_is_a_line_of_json(storage):
    _, *lines = publish(storage).to_json().splitlines()  # the first one is the totals
    entries = [json.loads(line.rstrip(",")) for line in lines if line.startswith("{")]
    names = [entry["name"] for entry in entries if "name" in entry]
    assert names == sorted(str(shard.name) for shard in SHARDS)
    assert sum("uri" in entry for entry in entries) == 2


def test_an_index_comes_back_from_its_file(storage):
    published = publish(storage)
    found = read_index(storage)
    assert found.to_json() == published.to_json()
    assert sorted(found.shards, key=lambda shard: shard.name) == sorted(
        published.shards, key=lambda shard: shard.name
    )
    assert read_index(Storage(f"{storage.uri}/elsewhere")) is None


def test_totals_and_sources_are_the_sums_of_the_footers():
    index = Index("f" * 16, SHARDS, ids_checked=True)
    assert index.totals() == {
        "shards": 3,
        "size_bytes": 3000,
        "source_rows": 6,
        "documents": 5,
        "rows": 8,
        "rejected": 1,
        "unreadable": 1,
        "tokens": 30,
        "truncated": 0,
    }
    first, second = index.sources()
    assert (first["uri"], first["shards"], first["source_rows"]) == ("/in/a.jsonl", 2, 4)
    assert (first["documents"], first["rejected"]) == (3, 1)
    assert (second["uri"], second["shards"]) == ("/in/b.jsonl", 1)


def test_two_versions_of_one_source_are_two_entries():
    old = an_indexed_shard(a_unit(a_source(version="v0")))
    sources = Index("f" * 16, (old, an_indexed_shard()), ids_checked=True).sources()
    assert [entry["version"] for entry in sources] == ["v0", "v1"]


def test_known_footers_are_not_read_again(storage, footers_read):
    published = publish(storage, SHARDS[:2])
    (new,) = write_shards(storage, SHARDS[2:])
    found = collect_shards(storage, list_shards(storage), published.shards)
    assert footers_read == [new.name]
    assert found == {shard.name: shard for shard in [*published.shards, new]}


def test_a_known_shard_that_is_gone_is_not_listed(storage, footers_read):
    published = publish(storage)
    storage.delete(f"{DATA}/{SHARDS[1].name}")
    found = collect_shards(storage, list_shards(storage), published.shards)
    assert set(found) == {SHARDS[0].name, SHARDS[2].name}
    assert footers_read == []


def test_a_shard_of_another_size_than_the_index_says_is_read_again(storage, footers_read):
    published = publish(storage)
    first = published.shards[0]
    stale = replace(first, size_bytes=first.size_bytes + 1, footer=SHARDS[1].footer)
    found = collect_shards(storage, list_shards(storage), [stale, *published.shards[1:]])
    assert footers_read == [first.name]
    assert found[first.name] == first


def test_a_shard_that_another_job_retires_meanwhile_is_left_out(storage):
    publish(storage)
    sizes = list_shards(storage)
    storage.delete(f"{DATA}/{SHARDS[1].name}")
    assert set(collect_shards(storage, sizes)) == {SHARDS[0].name, SHARDS[2].name}


def test_files_that_are_no_shards_are_not_listed(storage):
    publish(storage)
    storage.create(f"{DATA}/.{SHARDS[0].name}.1f.tmp", b"")
    storage.create(f"{DATA}/notes.txt", b"")
    assert set(list_shards(storage)) == {shard.name for shard in SHARDS}


def test_an_index_that_lists_what_is_no_shard_is_damaged(storage):
    text = publish(storage).to_json().replace(str(SHARDS[0].name), "notes.txt")
    with pytest.raises(CorpusError, match="a shard's name is not one"):
        Index.from_json(text, INDEX_FILE)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 0}', '{"format": 1, "shards": [{"name": "x"}]}']
)
def test_a_damaged_index_says_that_it_may_be_deleted(storage, text):
    storage.replace(INDEX_FILE, text.encode())
    with pytest.raises(CorpusError, match=r"_index\.json is not an index .* delete it"):
        read_index(storage)


def test_an_index_of_a_newer_twofold_is_not_to_be_deleted(storage):
    storage.replace(INDEX_FILE, b'{"format": 2}')
    with pytest.raises(NewerFormatError, match=r"_index\.json was written by a newer") as refused:
        read_index(storage)
    assert "delete" not in str(refused.value)
