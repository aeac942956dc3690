"""A shard: its name, its table, its footer. The data file is the commit of the rows in it.

Name: `<unit key>-<ordinal>[-last].parquet`. A unit's shards are written in order, so a listing of
names alone says how far each unit is and whether it is complete.
Footer: three entries in the Parquet metadata, `twofold.format` (a number), `twofold.space` (the
embedding space) and `twofold.shard` (`ShardFooter`): what index, resume and `verify` need.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, TypeAdapter

from encoder.errors import InvalidInputError
from encoder.records import check_format, parse_record
from encoder.space import EmbeddingSpace
from pipelines.columns import EMBEDDING, REJECTS_SCHEMA, TEXT_HASH
from pipelines.errors import CorpusError
from pipelines.storage import Storage

__all__ = [
    "DATA",
    "REJECTS",
    "REUSED_ROWS",
    "REUSED_TOKENS",
    "ShardFooter",
    "ShardName",
    "UnitShards",
    "footer_of",
    "group_by_unit",
    "read_footer",
    "serialize_rejects",
    "serialize_shard",
]

DATA = "data"
REJECTS = "_rejects"
REUSED_ROWS, REUSED_TOKENS = "reused_rows", "reused_tokens"
"""In a footer's provenance, where there are any: rows whose vector was computed for another row
with the same text, and their tokens. Versions before this one read footers that have them."""
_SPACE_KEY = b"twofold.space"
_SHARD_KEY = b"twofold.shard"
_FORMAT_KEY = b"twofold.format"
_FORMAT = 1
"""Of the footer; shards that do not say theirs are of this one."""
_NAME = re.compile(r"(?P<unit>[0-9a-f]{32})-(?P<ordinal>\d{5,})(?P<last>-last)?\.parquet")


@dataclass(frozen=True, order=True)
class ShardName:
    """The name of a shard, of its data file and of its rejects file alike."""

    unit: str
    ordinal: int
    last: bool

    def __str__(self) -> str:
        """Return the file name."""
        return f"{self.stem}{'-last' if self.last else ''}.parquet"

    @property
    def stem(self) -> str:
        """What the name begins with, whether or not the shard is its unit's last."""
        return f"{self.unit}-{self.ordinal:05d}"

    @classmethod
    def parse(cls, file_name: str) -> ShardName | None:
        """Return the name's parts, or None for a file that is no shard."""
        match = _NAME.fullmatch(file_name)
        if match is None:
            return None
        return cls(match["unit"], int(match["ordinal"]), match["last"] is not None)


@dataclass
class UnitShards:
    """The shards of one unit that exist, by ordinal."""

    names: dict[int, ShardName] = field(default_factory=dict)

    @property
    def next_ordinal(self) -> int:
        """The first ordinal that is missing."""
        return next(n for n in range(len(self.names) + 1) if n not in self.names)

    @property
    def complete(self) -> bool:
        """Whether the unit's last shard and all before it exist."""
        before = self.names.get(self.next_ordinal - 1)
        return before is not None and before.last


def group_by_unit(file_names: Iterable[str]) -> dict[str, UnitShards]:
    """Group the shards of a listing by unit key; files that are no shards are passed over."""
    units: dict[str, UnitShards] = {}
    for name in filter(None, map(ShardName.parse, file_names)):
        units.setdefault(name.unit, UnitShards()).names[name.ordinal] = name
    return units


@dataclass(frozen=True)
class ShardFooter:
    """What a shard says of itself.

    Attributes:
        source: URI of the source file.
        version: Version of the source that was read (ETag, or size and mtime).
        format: How its rows are stored (`Format`).
        root: Input argument under which the source was found.
        range_kind: What `range_start` and `range_stop` count (`RangeKind`).
        range_start: Start of the unit's range.
        range_stop: End of the unit's range.
        ordinal: Position of the shard in its unit.
        last: Whether the unit ends with it.
        row_start: First source row of the shard, counted from the unit's start.
        row_stop: One past the last source row.
        documents: Source rows that were embedded.
        rows: Rows of the data file; more than `documents` where long ones were chunked.
        rejected: Source rows in the rejects file.
        unreadable: 1 where the rest of the file could not be read (`--on-invalid reject`).
        tokens: Tokens given to the model.
        padded_tokens: Tokens after padding, what the forward computed.
        truncated: Rows whose text was cut at `max_seq_length`.
        run_id: The run that wrote it.
        provenance: Model reference, backend, dtype, versions: not part of the space. And
            `REUSED_ROWS`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    source: str
    version: str
    format: str
    root: str
    range_kind: str
    range_start: int
    range_stop: int
    ordinal: int
    last: bool
    row_start: int
    row_stop: int
    documents: int
    rows: int
    rejected: int
    unreadable: int
    tokens: int
    padded_tokens: int
    truncated: int
    run_id: str
    provenance: dict[str, str]

    def to_json(self) -> str:
        """Return the footer entry."""
        return json.dumps(asdict(self), sort_keys=True)


_FOOTER = TypeAdapter(ShardFooter)


def serialize_shard(table: pa.Table, footer: ShardFooter, space: EmbeddingSpace) -> bytes:
    """Return the Parquet file of a shard.

    Vectors are stored plain and uncompressed (they do not compress, and reading stays a copy); the
    other columns are dictionary-encoded and zstd-compressed.
    """
    metadata = {
        _FORMAT_KEY: str(_FORMAT).encode(),
        _SPACE_KEY: space.to_json().encode(),
        _SHARD_KEY: footer.to_json().encode(),
    }
    plain = {EMBEDDING, TEXT_HASH}
    others = [
        leaf
        for field in table.schema
        if field.name not in plain
        for leaf in _leaves(field.type, field.name)
    ]
    vector_leaf = f"{EMBEDDING}.list.element"
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema.with_metadata(metadata),
        compression={**dict.fromkeys(others, "zstd"), vector_leaf: "none", TEXT_HASH: "none"},
        use_dictionary=others,
        write_statistics=others,
        # A flipped bit in a plain float is a float: only a checksum shows it to `verify`.
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _leaves(data_type: pa.DataType, path: str) -> Iterator[str]:
    """Yield the names that Parquet gives the columns of which a column consists."""
    types = pa.types
    if types.is_struct(data_type):
        for field in data_type:
            yield from _leaves(field.type, f"{path}.{field.name}")
    elif types.is_map(data_type):
        yield from _leaves(data_type.key_type, f"{path}.key_value.key")
        yield from _leaves(data_type.item_type, f"{path}.key_value.value")
    elif hasattr(data_type, "value_field"):  # lists of every sort
        yield from _leaves(data_type.value_type, f"{path}.list.element")
    else:
        yield path


def serialize_rejects(rows: list[dict[str, object]]) -> bytes:
    """Return the Parquet file of a shard's rejects (columns of `REJECTS_SCHEMA`)."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, REJECTS_SCHEMA), sink, compression="zstd")
    return bytes(sink.getvalue())


def footer_of(schema: pa.Schema, name: str) -> tuple[ShardFooter, EmbeddingSpace]:
    """Return what the Arrow schema metadata of a shard says.

    Raises:
        NewerFormatError: A newer version of twofold wrote the shard.
        CorpusError: The file has no such metadata, or other: it is not a shard.
    """
    metadata = schema.metadata or {}
    if _SPACE_KEY not in metadata or _SHARD_KEY not in metadata:
        raise CorpusError(f"{name} has no twofold footer; it was not written by `twofold embed`")
    try:
        check_format(_number(metadata.get(_FORMAT_KEY, b"1")), _FORMAT, name)
        footer = parse_record(_FOOTER, metadata[_SHARD_KEY])
        return footer, EmbeddingSpace.from_json(metadata[_SPACE_KEY])
    except InvalidInputError as error:
        raise CorpusError(f"{name} has a footer that twofold does not write: {error}") from error


def _number(text: bytes) -> int | bytes:
    # Of more digits than any number of ours: int() refuses 4,301.
    return int(text) if text.isdigit() and len(text) < 10 else text


def read_footer(storage: Storage, name: ShardName) -> tuple[ShardFooter, EmbeddingSpace]:
    """Read the footer of a shard of an output folder: one or two small ranged reads.

    Raises:
        CorpusError: The file is no Parquet file, or not a shard.
    """
    relative = f"{DATA}/{name}"
    with storage.open(relative) as file:
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowInvalid, OSError) as error:
            # pyarrow raises a plain OSError for broken Thrift; any other is the store's.
            if isinstance(error, OSError) and "thrift" not in str(error).lower():
                raise
            reason = " ".join(str(error).split())
            raise CorpusError(f"{storage.below(relative)} is not readable: {reason}") from error
    return footer_of(schema, storage.below(relative))
