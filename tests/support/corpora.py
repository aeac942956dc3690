"""What tests of the corpus job are made of: a job, a pin, units, footers, shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace
from pipelines.actor.unit_job import UnitJob
from pipelines.columns import shard_schema
from pipelines.corpus.index import IndexedShard
from pipelines.corpus.pin import CorpusLayout, Pin
from pipelines.corpus.shards import DATA, ShardFooter, ShardName, serialize_shard
from pipelines.source.units import Format, RangeKind, Source, WorkUnit
from pipelines.storage import Storage
from support.fake_encoder import DIMENSION, SPACE

__all__ = [
    "a_footer",
    "a_job",
    "a_layout",
    "a_pin",
    "a_shard_table",
    "a_source",
    "a_unit",
    "an_indexed_shard",
    "jsonl",
    "units_of",
    "write_shards",
]

CARRIED = pa.schema([("id", pa.string())])


def a_layout(**changes: Any) -> CorpusLayout:
    return replace(
        CorpusLayout(
            role="document",
            id_column="id",
            text_columns=("text",),
            carried=(("id", "string"),),
            embedding_dtype="float32",
            on_long="truncate",
            chunk_overlap=0,
            rows_per_shard=3,
            unit_bytes=1_000_000,
        ),
        **changes,
    )


def a_pin(space: EmbeddingSpace = SPACE, **layout: Any) -> Pin:
    return Pin(space, a_layout(**layout), CARRIED, {"model": "fake"})


def a_job(output: Path | str, run_id: str = "run-1", **layout: Any) -> UnitJob:
    return UnitJob(
        output=str(output),
        pin=a_pin(**layout),
        encoder=EncoderSettings(),
        on_invalid=None,
        batch_timeout_s=60.0,
        run_id=run_id,
    )


def a_source(uri: str = "/in/a.jsonl", version: str = "v1", root: str = "/in") -> Source:
    return Source(uri, version, 100, Format.JSONL, root=root)


def a_unit(source: Source | None = None, start: int = 0, rows: int | None = None) -> WorkUnit:
    return WorkUnit(source or a_source(), RangeKind.BYTES, start, start + 10, rows, None, 10)


def a_footer(unit: WorkUnit | None = None, ordinal: int = 0, **changes: Any) -> ShardFooter:
    """Return the footer of a shard of two rows, unless changed."""
    unit = unit or a_unit()
    footer = ShardFooter(
        source=unit.source.uri,
        version=unit.source.version,
        format=unit.source.format.value,
        root=unit.source.root,
        range_kind=unit.kind.value,
        range_start=unit.start,
        range_stop=unit.stop,
        ordinal=ordinal,
        last=True,
        row_start=2 * ordinal,
        row_stop=2 * ordinal + 2,
        documents=2,
        rows=2,
        rejected=0,
        unreadable=0,
        tokens=10,
        padded_tokens=12,
        truncated=0,
        run_id="run-1",
        provenance={"model": "fake"},
    )
    return replace(footer, **changes)


def an_indexed_shard(
    unit: WorkUnit | None = None, ordinal: int = 0, **changes: Any
) -> IndexedShard:
    unit = unit or a_unit()
    footer = a_footer(unit, ordinal, **changes)
    return IndexedShard(ShardName(unit.key, ordinal, footer.last), 1000, footer)


def a_shard_table(
    ids: Sequence[str], chunks: Sequence[int] | None = None, embedding_dtype: str = "float32"
) -> pa.Table:
    """Return a shard's rows with random vectors."""
    schema = shard_schema(CARRIED, dimension=DIMENSION, embedding_dtype=embedding_dtype)
    rows = len(ids)
    vectors = np.random.default_rng(0).normal(size=rows * DIMENSION).astype(embedding_dtype)
    numbers = np.arange(rows)
    columns = [
        pa.array(ids, pa.string()),
        pa.array(chunks or [0] * rows, pa.int32()),
        pa.array(numbers),
        pa.array(numbers),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors), DIMENSION),
        pa.array(numbers, pa.int32()),
        pa.array(numbers % 2 == 0),
        pa.array([n.to_bytes(16, "big") for n in range(rows)], pa.binary(16)),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def write_shards(
    storage: Storage, shards: Sequence[IndexedShard], ids_of: str | None = None
) -> list[IndexedShard]:
    """Commit shards with just these footers; return them with their sizes.

    Ids are `<unit>-<source row>`, or those of the unit `ids_of`.
    """
    written = []
    for shard in shards:
        footer = shard.footer
        unit = ids_of or shard.name.unit
        ids = [f"{unit}-{footer.row_start + n}" for n in range(footer.rows)]
        data = serialize_shard(a_shard_table(ids), footer, SPACE)
        if not storage.create(f"{DATA}/{shard.name}", data):
            raise AssertionError(f"{shard.name} was written before")
        written.append(replace(shard, size_bytes=len(data)))
    return written


def jsonl(path: Path, texts: Sequence[object]) -> Path:
    """Write texts as JSON lines with ids "0", "1", ..."""
    lines = (json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts))
    path.write_text("".join(lines))
    return path


def units_of(path: Path) -> list[WorkUnit]:
    """Plan a file as the job does."""
    from pipelines.source.plan import plan_units
    from pipelines.source.sources import list_sources

    sources = list_sources([str(path)], None)
    return plan_units(sources, unit_bytes=1_000_000, tolerate_unreadable=False)
