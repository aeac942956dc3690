"""Corpora that an earlier twofold wrote are read as they were meant, for ever.

`tests/data/corpus_of_format_1` was written by twofold 0.1.0: JSON lines of five rows, one of them
empty and one in two chunks, two shards of three rows. It must never be written again: if a test
fails, the code is wrong, or needs to read two formats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoder.corpus_files import read_corpus_probe, read_corpus_space
from encoder.space import EmbeddingSpace, Pooling, Role, RoleEncoding
from pipelines.corpus.index import collect_shards, list_shards, read_index
from pipelines.corpus.pin import CorpusLayout, read_pin
from pipelines.corpus.probe_vectors import read_probe_vectors
from pipelines.corpus.shards import footer_of
from pipelines.search import search
from pipelines.storage import Storage
from pipelines.verify import VerifySettings, verify
from support.vectors import FixedEncoder

CORPUS = Path(__file__).parents[3] / "data/corpus_of_format_1"
UNIT = "8f4a901f40f12ad7ad12099a84c97229"
SPACE = EmbeddingSpace(
    weights_sha256="eab1913c087b229198c7d2576fb003716d5c2bd728b5e1774bbd6203fb10ccbd",
    tokenizer_sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    query=RoleEncoding(Pooling.MEAN),
    document=RoleEncoding(Pooling.CLS),
    normalize=True,
    max_seq_length=128,
    truncate_dim=None,
    dimension=32,
)


@pytest.fixture
def storage() -> Storage:
    return Storage(str(CORPUS))


def test_its_pin_is_read(storage):
    pin = read_pin(storage)
    assert pin is not None
    assert pin.space == SPACE
    assert pin.layout == CorpusLayout(
        role="document",
        id_column="id",
        text_columns=("text",),
        carried=(("id", "string"), ("lang", "string")),
        embedding_dtype="float32",
        on_long="chunk",
        chunk_overlap=16,
        rows_per_shard=3,
        unit_bytes=2**26,
    )
    assert pin.carried == pa.schema([("id", pa.string()), ("lang", pa.string())])
    assert pin.provenance["twofold"] == "0.1.0"


def test_its_probe_vectors_are_read(storage):
    probe = read_probe_vectors(storage, SPACE)
    assert probe is not None
    assert len(probe.texts) == 8
    assert all(probe.vectors[role].shape == (8, 32) for role in Role)


def test_its_index_is_what_its_footers_say(storage):
    index = read_index(storage)
    assert index is not None
    assert index.fingerprint == SPACE.fingerprint
    assert [str(shard.name) for shard in index.shards] == [
        f"{UNIT}-00000.parquet",
        f"{UNIT}-00001-last.parquet",
    ]
    assert {s.name: s for s in index.shards} == collect_shards(storage, list_shards(storage))


def test_its_footers_are_read():
    schema = pq.read_schema(CORPUS / f"data/{UNIT}-00001-last.parquet")
    footer, space = footer_of(schema, "shard")
    assert space == SPACE
    assert (footer.source, footer.version) == ("/lake/docs/a.jsonl", "1240-1767225600000000000")
    assert (footer.ordinal, footer.last, footer.documents, footer.rows) == (1, True, 2, 3)


def test_verify_finds_nothing():
    assert verify(VerifySettings(output=str(CORPUS))).findings == ()


def test_it_can_be_searched():
    table = pq.read_table(CORPUS / f"data/{UNIT}-00000.parquet")
    vector = np.array(table["embedding"][0].as_py())
    (found,) = search(str(CORPUS), ["q"], 1, encoder=FixedEncoder(SPACE, {"q": vector}))
    assert [(hit.id, hit.columns) for hit in found.hits] == [("csv", {"lang": "en"})]


def test_an_endpoint_reads_its_space_and_its_probe_vectors():
    assert read_corpus_space(str(CORPUS)).space == SPACE
    assert read_corpus_probe(str(CORPUS), SPACE) is not None
