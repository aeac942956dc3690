"""`twofold pull`: mirror a model to a folder or a bucket.

    twofold pull --model org/name --to s3://bucket/models/name

On machines that reach no hub, `--model s3://bucket/models/name` then loads the same embedding
space: the mirror's `embedding_space.json` says which.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from command_line.boundary import run_command
from command_line.fields import Location
from command_line.parse import parse_settings
from encoder.model.mirror import MirroredModel, mirror
from encoder.settings import EncoderSettings
from pipelines.errors import exit_code

__all__ = ["PullSettings", "main"]


class PullSettings(BaseModel):
    """What `twofold pull` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: Location = Field(description="Destination: a folder or any fsspec URI")
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        PullSettings,
        argv,
        prog="twofold pull",
        description="Mirror a model, with a record of its embedding space, to a folder or a "
        "bucket. What only runs a model (backend, dtype, device, batches) is not recorded.",
    )
    mirrored = mirror(settings.encoder, settings.to)
    sys.stdout.write(_summary(mirrored, settings.to) + "\n")
    return 0


def _summary(mirrored: MirroredModel, destination: str) -> str:
    done = (
        f"copied {len(mirrored.copied)} files" if mirrored.copied else "nothing to do: same model"
    )
    return f"{destination}: {done}; embedding space {mirrored.space.summary()}"
