"""The first encoder of a corpus leaves its probe vectors; every later one must agree with them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from encoder.corpus_files import PROBE_VECTORS_FILE, read_corpus_probe
from encoder.errors import SpaceMismatchError
from encoder.probe_vectors import ProbeVectors
from pipelines.corpus.probe_vectors import agree_on_probe_vectors, read_probe_vectors
from pipelines.storage import Storage
from support.fake_encoder import SPACE, FakeEncoder


class OtherEncoder(FakeEncoder):
    """Of the same space, and its vectors point elsewhere."""

    def encode(self, texts, role):
        return super().encode([f"{text} {role.value}" for text in texts], role)


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "out"))


def test_the_first_encoder_writes_and_an_equal_one_changes_nothing(storage):
    assert read_probe_vectors(storage, SPACE) is None
    agree_on_probe_vectors(storage, FakeEncoder())
    written = storage.read(PROBE_VECTORS_FILE)
    agree_on_probe_vectors(storage, FakeEncoder())
    assert storage.read(PROBE_VECTORS_FILE) == written


def test_an_encoder_that_computes_others_is_refused_and_changes_nothing(storage):
    agree_on_probe_vectors(storage, FakeEncoder())
    written = storage.read(PROBE_VECTORS_FILE)
    with pytest.raises(
        SpaceMismatchError, match=f"other vectors than .* wrote {storage.uri}/{PROBE_VECTORS_FILE}"
    ):
        agree_on_probe_vectors(storage, OtherEncoder())
    assert storage.read(PROBE_VECTORS_FILE) == written


def test_of_encoders_that_start_together_those_that_differ_from_the_first_are_refused(storage):
    def start(encoder: FakeEncoder) -> bool:
        try:
            agree_on_probe_vectors(storage, encoder)
        except SpaceMismatchError:
            return False
        return True

    encoders = [FakeEncoder(), OtherEncoder()] * 8
    with ThreadPoolExecutor(len(encoders)) as pool:
        agreed = list(pool.map(start, encoders))
    assert agreed in ([True, False] * 8, [False, True] * 8)


def test_one_who_loses_the_race_is_compared_with_the_winner(storage, monkeypatch):
    create = Storage.create

    def after_another(self: Storage, relative: str, data: bytes) -> bool:
        create(self, relative, ProbeVectors.of(OtherEncoder()).to_json().encode())
        return create(self, relative, data)

    monkeypatch.setattr(Storage, "create", after_another)
    with pytest.raises(SpaceMismatchError, match="other vectors"):
        agree_on_probe_vectors(storage, FakeEncoder())


def test_a_damaged_file_is_refused_with_its_address(storage):
    storage.create(PROBE_VECTORS_FILE, b"{")
    with pytest.raises(SpaceMismatchError, match=f"^{storage.uri}/{PROBE_VECTORS_FILE} does not"):
        agree_on_probe_vectors(storage, FakeEncoder())


def test_an_endpoint_reads_what_the_job_wrote(storage):
    assert read_corpus_probe(storage.uri, SPACE) is None
    agree_on_probe_vectors(storage, FakeEncoder())
    known = read_corpus_probe(storage.uri, SPACE)
    assert known.to_json() == json.dumps(json.loads(storage.read(PROBE_VECTORS_FILE)))
