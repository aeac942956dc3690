"""Settings of the encoder, nested by every entry point (`EmbedCorpusSettings`, `ServingSettings`).

Values left unset are read from the model's own files; a value given here overrides them.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from encoder.space import Pooling

__all__ = ["DEFAULT_MODEL", "BackendName", "DtypeName", "EncoderSettings"]

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?", re.ASCII)
DEFAULT_MODEL = "avsolatorio/NoInstruct-small-Embedding-v0"


class BackendName(StrEnum):
    """Which runtime does the forward."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"


class DtypeName(StrEnum):
    """Precision of the forward; pooled vectors are always float32."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError(f"expected auto, cpu, cuda or cuda:N, found {value!r}")
    return value


class EncoderSettings(BaseModel):
    """Which model encodes, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        DEFAULT_MODEL,
        description="Model reference: a Hugging Face id (org/name[@revision]), a local folder, an "
        "object-store URI (s3://bucket/models/x), or package:NAME",
    )
    backend: BackendName = Field(
        BackendName.AUTO,
        description="auto: torch on a GPU; on a CPU openvino where it is installed, else torch",
    )
    dtype: DtypeName = Field(
        DtypeName.AUTO,
        description="Precision of the forward. auto: bfloat16 (or float16) where the hardware has "
        "it and the model passes a fidelity probe, else float32. int8, the fastest on a CPU, is "
        "never picked: it needs the graph that `twofold quantize` puts into the model's folder",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        "auto", description="auto, cpu, cuda or cuda:N"
    )
    query_pooling: Pooling | None = Field(None, description="Overrides the model's query pooling")
    document_pooling: Pooling | None = Field(
        None, description="Overrides the model's document pooling"
    )
    query_prompt: str | None = Field(None, description="Overrides the model's query prompt")
    document_prompt: str | None = Field(None, description="Overrides the model's document prompt")
    normalize: bool | None = Field(
        None, description="Unit-length vectors (dot product = cosine); unset: true"
    )
    max_seq_length: int | None = Field(
        None, ge=3, description="Tokens per text, special tokens included; unset: the model's own"
    )
    truncate_dim: int | None = Field(
        None, ge=1, description="Keep the first N dimensions (Matryoshka models)"
    )
    max_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="Padded tokens per forward. Larger is faster on a GPU, slower on a CPU "
        "(cache); unset: 1024 a stream on openvino, 2048 on torch CPU, probed on a GPU",
    )
    num_threads: int | None = Field(
        None, ge=1, description="CPU threads of the forward; unset: all that this process may use"
    )
