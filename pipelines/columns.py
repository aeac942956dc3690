"""Names and Arrow types of the columns that the job writes: the only place where they stand."""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "CHAR_END",
    "CHAR_START",
    "CHUNK_INDEX",
    "EMBEDDING",
    "N_TOKENS",
    "REJECTS_SCHEMA",
    "RESERVED",
    "TEXT_HASH",
    "TEXT_HASH_BYTES",
    "TRUNCATED",
    "shard_schema",
]

CHUNK_INDEX = "chunk_index"
CHAR_START = "char_start"
CHAR_END = "char_end"
EMBEDDING = "embedding"
N_TOKENS = "n_tokens"
TRUNCATED = "truncated"
TEXT_HASH = "text_hash"

RESERVED = (CHUNK_INDEX, CHAR_START, CHAR_END, EMBEDDING, N_TOKENS, TRUNCATED, TEXT_HASH)
"""Names that an id or pass-through column may not have."""

TEXT_HASH_BYTES = 16

REJECTS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("stage", pa.string()),
    ]
)
"""One row for every source row that was not embedded.

`id` is the id as text (null where there is none), `row` the row's position in the source (null
where a whole file is unreadable), `stage` one of read, validate, chunk, encode.
"""


def shard_schema(carried: pa.Schema, *, dimension: int, embedding_dtype: str) -> pa.Schema:
    """Return the schema of a data shard.

    Args:
        carried: The id column, then the pass-through columns, with the types of the source.
        dimension: Length of a vector.
        embedding_dtype: "float32" or "float16".
    """
    value = pa.float16() if embedding_dtype == "float16" else pa.float32()
    return pa.schema(
        [
            *carried,
            pa.field(CHUNK_INDEX, pa.int32(), nullable=False),
            pa.field(CHAR_START, pa.int64(), nullable=False),
            pa.field(CHAR_END, pa.int64(), nullable=False),
            pa.field(EMBEDDING, pa.list_(value, dimension), nullable=False),
            pa.field(N_TOKENS, pa.int32(), nullable=False),
            pa.field(TRUNCATED, pa.bool_(), nullable=False),
            pa.field(TEXT_HASH, pa.binary(TEXT_HASH_BYTES), nullable=False),
        ]
    )
