"""Settings of the corpus job, and of the commands that look at a corpus as it does.

Frozen models, filled by flags, environment and a YAML file; a command's own inherits from what it
shares with others, so that a setting is declared once and means the same in each.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from command_line.fields import AUTO_IS_UNSET, CommaSeparated, Location, Locations, OneOrMore
from encoder.settings import EncoderSettings
from encoder.space import Role
from pipelines.columns import RESERVED
from pipelines.source.units import Format

__all__ = [
    "DEFAULT_UNIT_BYTES",
    "Actors",
    "CorpusSettings",
    "EmbedCorpusSettings",
    "EmbeddingDtype",
    "InputSettings",
    "JobSettings",
    "OnInvalid",
    "OnLong",
    "ShardSettings",
]

DEFAULT_UNIT_BYTES = 64 * 2**20


class OnLong(StrEnum):
    """What happens to a document of more than `max_seq_length` tokens."""

    TRUNCATE = "truncate"
    CHUNK = "chunk"
    REJECT = "reject"


class OnInvalid(StrEnum):
    """How far invalid input is tolerated; unset lies between the two."""

    REJECT = "reject"
    FAIL = "fail"


EmbeddingDtype = Literal["float32", "float16"]


class Actors(BaseModel):
    """Size of the actor pool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        """Accept "4" and "2:8" beside {min: 2, max: 8}."""
        if isinstance(value, int):
            return {"min": value, "max": value}
        if isinstance(value, str):
            low, _, high = value.partition(":")
            return {"min": low, "max": high or low}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Actors:
        if self.max < self.min:
            raise ValueError(f"expected MIN[:MAX] with MIN <= MAX, found {self.min}:{self.max}")
        return self


class InputSettings(BaseModel):
    """Which documents are read, and the model that they are read for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Locations = Field(
        min_length=1,
        description="Files, folders or globs, local or any fsspec URI (s3://bucket/docs/*.parquet)",
    )
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    input_format: Annotated[Format | None, AUTO_IS_UNSET] = Field(
        None, description="parquet, jsonl, csv or text; auto: from each file's name"
    )
    id_column: str = Field(
        "id", description="Column that names a row; text files use path:byte-offset instead"
    )
    text_column: OneOrMore = Field(
        ("text",), min_length=1, description="Column to embed; repeat it to join several by a space"
    )
    role: Role = Field(Role.DOCUMENT, description="Embed the rows as documents or as queries")


class ShardSettings(BaseModel):
    """What becomes of a corpus' rows: how they are stored, and in which portions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_dtype: EmbeddingDtype = Field(
        "float32", description="Stored precision: float16 halves the output"
    )
    rows_per_shard: int = Field(
        10_000,
        ge=1,
        description="Rows of an output file, and so of a commit: fewer lose less work in a crash, "
        "more make fewer files",
    )
    unit_bytes: int = Field(
        DEFAULT_UNIT_BYTES,
        ge=1,
        description="Input bytes of a work unit where the format can be split",
    )


class CorpusSettings(InputSettings, ShardSettings):
    """All that decides which rows are written of a corpus, and how they look."""

    columns: CommaSeparated = Field((), description="Columns to pass through, a,b,c")
    on_long: OnLong = Field(
        OnLong.TRUNCATE, description="What to do with texts of more than max-seq-length tokens"
    )
    chunk_overlap: int = Field(
        64, ge=0, description="Tokens that neighbouring chunks share (--on-long chunk)"
    )

    @model_validator(mode="after")
    def _carries_each_once(self) -> CorpusSettings:
        carried = [self.id_column, *self.columns]
        reserved = sorted(set(carried) & set(RESERVED))
        if reserved:
            raise ValueError(f"columns {reserved} are the job's own; rename them in the source")
        twice = sorted({name for name in carried if carried.count(name) > 1})
        if twice:
            raise ValueError(f"columns {twice} are named more than once")
        return self


class JobSettings(ShardSettings):
    """How a corpus is embedded, whatever it is: what is stored, and on which workers.

    `EmbedCorpusSettings` adds the corpus; commands that embed one of their own nest this.
    """

    actors: Actors | None = Field(
        None, description="Actor pool, MIN[:MAX]; unset: as many as the cluster holds"
    )
    num_gpus_per_actor: float | None = Field(
        None,
        ge=0,
        description="unset: 1 where the cluster has GPUs and device and backend allow one, "
        "else 0; 0.5 puts two on a GPU",
    )
    num_cpus_per_actor: float | None = Field(
        None,
        gt=0,
        description="unset: a node's CPUs shared out over its actors, 8 at most where "
        "they have no GPU",
    )
    units_in_flight: int = Field(
        2,
        ge=1,
        le=8,
        description="Units that an actor works on at once: reading and tokenizing one overlaps "
        "the forward of the other, at the price of its memory",
    )
    batch_timeout_s: float = Field(
        900.0,
        gt=0,
        description="A forward that takes longer counts as stuck: its worker is ended",
    )
    shared_filesystem: bool = Field(
        False,
        description="Local inputs and a local output on a cluster of several nodes are folders "
        "that all of them mount at the same place; without it they are refused there",
    )


class EmbedCorpusSettings(CorpusSettings, JobSettings):
    """What `twofold embed` does. Field descriptions are the command's help."""

    output: Location = Field(description="Output folder, local or any fsspec URI")
    on_invalid: OnInvalid | None = Field(
        None,
        description="unset: a bad row is rejected and recorded, an unreadable file fails the job; "
        "reject: an unreadable file is rejected and recorded too; fail: the first bad row fails",
    )
    max_rejected: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Largest share of a run's rows that may be rejected; beyond it the run exits "
        "with 9, after everything is published, and so do the next ones until the files change. A "
        "run that rejected fewer than 100 passes, unless the share is 0",
    )
    check_ids: bool = Field(
        True, description="After new shards were committed, check that ids are unique"
    )
    prune: bool = Field(False, description="Retire shards of sources that are gone")
    prune_max: float = Field(
        0.1, ge=0, le=1, description="Largest share of the sources that --prune may retire"
    )
    reuse: bool = Field(
        True,
        description="Of a file that changed, or took the place of one in its folder, copy the "
        "vectors of texts that are in the corpus, where the same backend and precision computed "
        "them",
    )
    dry_run: bool = Field(False, description="Print the plan and do nothing")
