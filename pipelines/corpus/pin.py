"""What is pinned in `<output>/_space.json`: the embedding space and the layout of a corpus.

Written once, by whoever comes first (exclusive creation), and compared by every later run: vectors
of two spaces, or rows of two layouts, never meet in one output folder.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BeforeValidator, ConfigDict, TypeAdapter

from encoder.corpus_files import (
    CORPUS_SPACE_FILE,
    CORPUS_SPACE_FORMAT,
    CorpusSpace,
    parse_corpus_space,
)
from encoder.differences import shown_differences
from encoder.errors import InvalidInputError, SpaceMismatchError
from encoder.records import parse_record
from encoder.space import EmbeddingSpace, Role
from pipelines.corpus.shards import DATA
from pipelines.errors import CorpusError, LayoutMismatchError
from pipelines.settings import CorpusSettings, EmbeddingDtype, OnLong
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.storage import Storage

__all__ = [
    "CorpusLayout",
    "Pin",
    "check_pin",
    "pin_output",
    "read_pin",
    "require_pin",
]


def _as_pairs(value: object) -> object:
    """Return what stands in the file as an object as the pairs of which it consists."""
    return tuple(value.items()) if isinstance(value, dict) else value


@dataclass(frozen=True)
class CorpusLayout:
    """How rows become shards; another value of any field would make another corpus.

    Attributes:
        role: Role as which the rows are embedded.
        id_column: Column that names a row.
        text_columns: Columns that are joined by a space and embedded.
        carried: Columns written beside the vectors (id, pass-through, partition): name -> type.
        embedding_dtype: Stored precision.
        on_long: Treatment of texts longer than `max_seq_length`.
        chunk_overlap: Tokens shared by neighbouring chunks; 0 where nothing is chunked.
        rows_per_shard: Rows of a shard.
        unit_bytes: Input bytes of a work unit.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    role: Role
    id_column: str
    text_columns: tuple[str, ...]
    carried: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_as_pairs)]
    embedding_dtype: EmbeddingDtype
    on_long: OnLong
    chunk_overlap: int
    rows_per_shard: int
    unit_bytes: int

    @classmethod
    def of(cls, settings: CorpusSettings, columns: CorpusColumns) -> CorpusLayout:
        """Return the layout that a run's settings and sources ask for."""
        return cls(
            role=settings.role,
            id_column=columns.id_column,
            text_columns=columns.text_columns,
            carried=tuple((field.name, str(field.type)) for field in columns.carried),
            embedding_dtype=settings.embedding_dtype,
            on_long=settings.on_long,
            chunk_overlap=settings.chunk_overlap if settings.on_long is OnLong.CHUNK else 0,
            rows_per_shard=settings.rows_per_shard,
            unit_bytes=settings.unit_bytes,
        )

    def differences(self, other: CorpusLayout) -> dict[str, tuple[Any, Any]]:
        """Return the fields that differ, as name -> (ours, theirs).

        Of carried columns only the names count: the pinned types are used, because those of JSON
        lines are inferred from the first rows of whatever file comes first.
        """
        ours, theirs = asdict(self), asdict(other)
        for layout in (ours, theirs):
            layout["columns"] = [name for name, _ in layout.pop("carried")]
        return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}


@dataclass(frozen=True)
class Pin:
    """The content of `_space.json`.

    Attributes:
        space: The embedding space of every vector below.
        layout: The layout of every shard below.
        carried: Exact Arrow schema of the carried columns.
        provenance: Model reference and versions of the run that created the output.
    """

    space: EmbeddingSpace
    layout: CorpusLayout
    carried: pa.Schema
    provenance: dict[str, str]

    @property
    def columns(self) -> CorpusColumns:
        """What is read of every source row."""
        return CorpusColumns(self.layout.id_column, self.layout.text_columns, self.carried)

    @property
    def corpus_space(self) -> CorpusSpace:
        """What readers of the vectors need of it."""
        return CorpusSpace(self.space.fingerprint, self.space, self.provenance)

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps(
            {
                "format": CORPUS_SPACE_FORMAT,
                "fingerprint": self.space.fingerprint,
                "space": self.space.to_dict(),
                "layout": {**asdict(self.layout), "carried": dict(self.layout.carried)},
                "arrow_schema": base64.b64encode(self.carried.serialize()).decode(),
                "provenance": self.provenance,
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Pin:
        """Rebuild a pin.

        Args:
            text: The file's text.
            where: The file, for the error.

        Raises:
            NewerFormatError: A newer version of twofold wrote it.
            CorpusError: The file is not what twofold writes.
        """
        try:
            space = parse_corpus_space(text, where).space
            record = parse_record(_FILE, text)
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(record.arrow_schema)))
        except (InvalidInputError, OSError, ValueError) as error:
            raise CorpusError(
                f"{where} is not a corpus pin of this version of twofold ({error}); restore the "
                "file, or point --output at another folder"
            ) from error
        return cls(space, record.layout, schema, record.provenance)


@dataclass(frozen=True)
class _PinFile:
    """The content of `_space.json`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    format: int
    fingerprint: str
    space: EmbeddingSpace
    layout: CorpusLayout
    arrow_schema: str
    provenance: dict[str, str]


_FILE = TypeAdapter(_PinFile)


def read_pin(storage: Storage) -> Pin | None:
    """Return the pin of an output folder, or None where there is none yet."""
    text = storage.read(CORPUS_SPACE_FILE)
    return None if text is None else Pin.from_json(text, storage.below(CORPUS_SPACE_FILE))


def require_pin(storage: Storage) -> Pin:
    """Return the pin of a folder that must be a corpus.

    Raises:
        CorpusError: It is none.
    """
    pin = read_pin(storage)
    if pin is None:
        raise CorpusError(
            f"{storage.uri} is no corpus: expected {CORPUS_SPACE_FILE} in it, found none, or no "
            "such folder or bucket; give the --output of an earlier `twofold embed`"
        )
    return pin


def check_pin(storage: Storage, wanted: Pin) -> Pin:
    """Check that an output folder is empty or pinned to the same space and layout.

    Args:
        storage: The output folder; nothing is written.
        wanted: What this run would write.

    Returns:
        The pin that holds: the existing one's column types win over the ones inferred now.

    Raises:
        SpaceMismatchError: The folder holds vectors of another space.
        LayoutMismatchError: The folder has another layout.
        CorpusError: The folder holds shards but no pin.
    """
    existing = read_pin(storage)
    if existing is None:
        if storage.sizes(DATA):
            raise CorpusError(
                f"{storage.uri} has a data folder but no {CORPUS_SPACE_FILE}, so its space is "
                "unknown; restore the file or choose an empty output"
            )
        return wanted
    _refuse(
        storage,
        SpaceMismatchError,
        f"{storage.uri} holds vectors of space {existing.space.fingerprint}, this job makes "
        f"{wanted.space.fingerprint}",
        existing.space.differences(wanted.space),
        existing.corpus_space.moved(wanted.provenance),
    )
    _refuse(
        storage,
        LayoutMismatchError,
        f"{storage.uri} was written with another layout",
        existing.layout.differences(wanted.layout),
    )
    return existing


def pin_output(storage: Storage, pin: Pin) -> Pin:
    """Pin an output folder, unless somebody has: then check that it is to the same.

    Raises:
        SpaceMismatchError: Another job, started at the same time, pinned another space.
        LayoutMismatchError: Likewise with another layout.
    """
    storage.create(CORPUS_SPACE_FILE, pin.to_json().encode())
    return check_pin(storage, pin)


def _refuse(
    storage: Storage,
    kind: type[SpaceMismatchError] | type[LayoutMismatchError],
    what: str,
    differences: dict[str, tuple[Any, Any]],
    advice: str | None = None,
) -> None:
    if differences:
        advice = advice or "Use the same settings, or another --output"
        if not storage.sizes(DATA):
            pinned = storage.below(CORPUS_SPACE_FILE)
            advice += f"; it has no shards yet, so if no other job is at work, delete {pinned}"
        raise kind(f"{what}: {shown_differences(differences)}. {advice}")
