"""Settings of `twofold plan`: the corpus and layout of a job, and the fleet it would run on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.settings import CorpusSettings

__all__ = ["FleetSettings", "PlanSettings"]


class FleetSettings(BaseModel):
    """Which devices, and how fast one of them is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    @model_validator(mode="after")
    def _says_one_fleet(self) -> FleetSettings:
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


class PlanSettings(CorpusSettings, FleetSettings):
    """What `twofold plan` looks at. Field descriptions are the command's help."""

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
    json_lines: bool = Field(False, description="Print one JSON object instead of the table")
