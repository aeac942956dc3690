"""Settings of `twofold evaluate retrieval`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from command_line.fields import Location
from encoder.settings import EncoderSettings
from pipelines.evaluation.measurement import ON_THIS_MACHINE, ResultSettings
from pipelines.settings import JobSettings

__all__ = ["RetrievalSettings"]

_OUTPUT = "build/evaluation"


class RetrievalSettings(BaseModel):
    """What `twofold evaluate retrieval` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Location = Field(
        description="Folder in BEIR's layout, local or any fsspec URI: corpus, queries, qrels/",
    )
    split: str = Field("test", min_length=1, description="Judgements to use: qrels/SPLIT.tsv")
    output: Location = Field(
        _OUTPUT,
        description="Folder or URI below which the documents' vectors are kept, by dataset and "
        "space; the next run goes on from there",
    )
    ignore_identical_ids: bool = Field(
        False,
        description="A query does not find the document of its own id (as in ArguAna and Quora)",
    )
    per_query: Annotated[str | None, ON_THIS_MACHINE] = Field(
        None, description="Write every query's metrics to this file, one JSON object a line"
    )
    ablation: bool = Field(
        False, description="Compare the four pairs of query and document pooling"
    )
    storage: bool = Field(
        False, description="Compare float16, int8, binary and fewer dimensions by nDCG@10"
    )
    storage_dims: tuple[int, ...] = Field(
        (), description="Dimensions to compare; unset: all, a half and a quarter of them"
    )
    plot: Annotated[str | None, ON_THIS_MACHINE] = Field(
        None, description="Draw the storage choices into this SVG file"
    )
    result: ResultSettings = Field(default_factory=ResultSettings)
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    job: JobSettings = Field(default_factory=JobSettings)

    @model_validator(mode="after")
    def _consistent(self) -> RetrievalSettings:
        if self.plot is not None and not self.storage:
            raise ValueError("--plot draws what --storage compares: give both")
        if self.storage and self.job.embedding_dtype != "float32":
            raise ValueError(
                "--storage compares with the float32 vectors, found --embedding-dtype "
                f"{self.job.embedding_dtype}"
            )
        if any(dimension < 1 for dimension in self.storage_dims):
            raise ValueError("--storage-dims: expected numbers of at least 1")
        return self
