"""Settings of `twofold plan`: the corpus and layout of a job, and the fleet it would run on."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from command_line.fields import AUTO_IS_UNSET, CommaSeparated, Locations, OneOrMore
from encoder.settings import EncoderSettings
from encoder.space import Role
from pipelines.settings import DEFAULT_UNIT_BYTES, EmbedCorpusSettings, EmbeddingDtype, OnLong
from pipelines.source.units import Format

__all__ = ["PlanSettings"]

_ROWS_PER_SHARD: int = EmbedCorpusSettings.model_fields["rows_per_shard"].default


class PlanSettings(BaseModel):
    """What `twofold plan` looks at. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Locations = Field(
        min_length=1,
        description="Files, folders or globs, local or any fsspec URI (s3://bucket/docs/*.parquet)",
    )
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    gpus: str | None = Field(
        None, description="GPUs of the fleet, as COUNTxNAME: 8xH100; needs their rate"
    )
    cpus: int | None = Field(
        None,
        ge=1,
        description="CPU cores of the fleet; with --gpus those that read, tokenize and write for "
        "them",
    )
    tokens_per_s: float | None = Field(
        None,
        gt=0,
        description="Measured rate of one GPU, or of one core where there are no GPUs; unset: "
        "cores are probed here, GPUs are refused",
    )
    tflops: float | None = Field(
        None,
        gt=0,
        description="Peak of one GPU at the precision used; with --utilisation an assumed rate",
    )
    utilisation: float | None = Field(
        None, gt=0, le=1, description="Share of --tflops that the forward is assumed to sustain"
    )
    sample_bytes: int = Field(
        16 * 2**20,
        ge=2**20,
        description="Stored bytes that are read; a smaller corpus is read whole",
    )
    sample_documents: int = Field(
        8_000, ge=1, description="Documents that are tokenized, from all that were read"
    )
    probe_s: float = Field(
        10.0, gt=0, description="Seconds of forward on this machine, where cores are probed"
    )
    input_format: Annotated[Format | None, AUTO_IS_UNSET] = Field(
        None, description="parquet, jsonl, csv or text; auto: from each file's name"
    )
    id_column: str = Field("id", description="As of twofold embed")
    text_column: OneOrMore = Field(("text",), min_length=1, description="As of twofold embed")
    columns: CommaSeparated = Field((), description="As of twofold embed")
    role: Role = Field(Role.DOCUMENT, description="As of twofold embed")
    embedding_dtype: EmbeddingDtype = Field("float32", description="As of twofold embed")
    rows_per_shard: int = Field(_ROWS_PER_SHARD, ge=1, description="As of twofold embed")
    unit_bytes: int = Field(DEFAULT_UNIT_BYTES, ge=1, description="As of twofold embed")
    on_long: OnLong = Field(OnLong.TRUNCATE, description="As of twofold embed")
    chunk_overlap: int = Field(64, ge=0, description="As of twofold embed (--on-long chunk)")
    json_lines: bool = Field(False, description="Print one JSON object instead of the table")

    @model_validator(mode="after")
    def _consistent(self) -> PlanSettings:
        if self.gpus is None and self.cpus is None:
            raise ValueError(
                "expected a fleet, found none; give --gpus 8xH100 or --cpus 64 (cores in all)"
            )
        if (self.tflops is None) != (self.utilisation is None):
            raise ValueError(
                "--tflops and --utilisation only say something together: the peak, and the share "
                "of it that is sustained"
            )
        if self.tflops is not None and self.tokens_per_s is not None:
            raise ValueError("give a measured --tokens-per-s or an assumed --tflops, not both")
        if self.tflops is not None and self.gpus is None:
            raise ValueError("--tflops is a GPU's; without --gpus leave it out: cores are probed")
        return self
