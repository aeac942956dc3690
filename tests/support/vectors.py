"""Corpora of given vectors, written as the job writes them but without a model or Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from encoder.corpus_files import CORPUS_SPACE_FILE
from encoder.encoder import Encoded
from encoder.space import EmbeddingSpace, Pooling, Role, RoleEncoding
from pipelines.columns import shard_schema
from pipelines.corpus.index import INDEX_FILE, Index, collect_shards, list_shards
from pipelines.corpus.pin import CorpusLayout, Pin
from pipelines.corpus.shards import DATA, ShardFooter, ShardName, serialize_shard
from pipelines.source.units import Format, RangeKind, Source, WorkUnit
from pipelines.storage import Storage

__all__ = ["FixedEncoder", "VectorRow", "make_pin", "make_space", "publish_index", "write_vectors"]


@dataclass(frozen=True)
class VectorRow:
    """A row of a shard; chunks of a document stand one behind the other."""

    id: object
    vector: Sequence[float]
    chunk_index: int = 0
    title: str | None = None


class FixedEncoder:
    """Stands in for `encoder.Encoder`: the vectors of texts are given, those of others are one.

    What is longer than `limit` characters counts as truncated.
    """

    def __init__(
        self, space: EmbeddingSpace, vectors: dict[str, Sequence[float]], *, limit: int = 1000
    ) -> None:
        self.space = space
        self._limit = limit
        self.provenance = {"model": "/nowhere", "dtype": "float32"}
        self._vectors = vectors

    def encode(self, texts: Sequence[str], role: Role) -> Encoded:
        one = np.eye(1, self.space.dimension)[0]
        rows = [self._vectors.get(text, one) for text in texts]
        vectors = np.array(rows, np.float32).reshape(-1, self.space.dimension)
        truncated = np.array([len(text) > self._limit for text in texts], np.bool_)
        return Encoded(vectors, np.ones(len(texts), np.int32), truncated, 0)


def make_space(dimension: int, *, normalize: bool = True) -> EmbeddingSpace:
    return EmbeddingSpace(
        weights_sha256="0" * 64,
        tokenizer_sha256="1" * 64,
        query=RoleEncoding(Pooling.MEAN),
        document=RoleEncoding(Pooling.CLS),
        normalize=normalize,
        max_seq_length=128,
        truncate_dim=None,
        dimension=dimension,
    )


def make_pin(
    space: EmbeddingSpace, *, embedding_dtype: str = "float32", id_type: pa.DataType | None = None
) -> Pin:
    carried = pa.schema([("id", id_type or pa.string()), ("title", pa.string())])
    layout = CorpusLayout(
        role="document",
        id_column="id",
        text_columns=("text",),
        carried=tuple((field.name, str(field.type)) for field in carried),
        embedding_dtype=embedding_dtype,
        on_long="chunk",
        chunk_overlap=8,
        rows_per_shard=100,
        unit_bytes=1,
    )
    return Pin(space, layout, carried, {"model": "/nowhere"})


def write_vectors(
    folder: Path, pin: Pin, shards: Sequence[Sequence[VectorRow]], *, source: str = "/in/a.parquet"
) -> list[ShardName]:
    """Write the pin and a unit of one shard for each list of rows; no index."""
    storage = Storage(str(folder))
    storage.create(CORPUS_SPACE_FILE, pin.to_json().encode())
    names = []
    for number, rows in enumerate(shards):
        unit = WorkUnit(
            Source(source, "v1", 1, Format.PARQUET, root="/in"),
            *(RangeKind.ROW_GROUPS, number, number + 1),
            rows=None,
            first_row=None,
            size_bytes=1,
        )
        name = ShardName(unit.key, 0, True)
        names.append(name)
        data = serialize_shard(_table(pin, rows), _footer(unit, rows), pin.space)
        assert storage.create(f"{DATA}/{name}", data)
    return names


def publish_index(folder: Path, pin: Pin, leave_out: Sequence[ShardName] = ()) -> None:
    storage = Storage(str(folder))
    shards = collect_shards(storage, list_shards(storage))
    live = tuple(shard for name, shard in shards.items() if name not in leave_out)
    storage.replace(INDEX_FILE, Index(pin.space.fingerprint, live, True).to_json().encode())


def _table(pin: Pin, rows: Sequence[VectorRow]) -> pa.Table:
    dimension, dtype = pin.space.dimension, pin.layout.embedding_dtype
    vectors = np.array([row.vector for row in rows], dtype).reshape(-1)
    schema = shard_schema(pin.carried, dimension=dimension, embedding_dtype=dtype)
    count = len(rows)
    columns = [
        [row.id for row in rows],
        [row.title for row in rows],
        [row.chunk_index for row in rows],
        [10 * row.chunk_index for row in rows],
        [10 * row.chunk_index + 12 for row in rows],
        pa.FixedSizeListArray.from_arrays(pa.array(vectors), dimension),
        [3] * count,
        [False] * count,
        [bytes(16)] * count,
    ]
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _footer(unit: WorkUnit, rows: Sequence[VectorRow]) -> ShardFooter:
    documents = sum(row.chunk_index == 0 for row in rows)
    empty = ShardFooter(
        *(unit.source.uri, unit.source.version, unit.source.format.value, unit.source.root),
        unit.kind.value,
        *(unit.start, unit.stop, 0, True, 0, 0, 0, 0, 0, 0, 0, 0, 0, "run", {"dtype": "float32"}),
    )
    return replace(
        empty, row_stop=documents, documents=documents, rows=len(rows), tokens=3 * len(rows)
    )
