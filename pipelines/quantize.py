r"""`twofold quantize`: mirror a model with a graph in int8, calibrated on texts of a corpus.

    twofold quantize --model org/name --input s3://lake/docs/ --to s3://lake/models/name-int8
    twofold embed --model s3://lake/models/name-int8 --dtype int8 ...

It runs once, because two calibrations give two slightly different sets of vectors: jobs and
endpoints then read the same graph. The command reads a bounded sample of the corpus, with the
job's readers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from command_line.boundary import run_command
from command_line.fields import Location, Locations
from command_line.parse import parse_settings
from encoder.model.description import describe_model
from encoder.role_tokenizer import RoleTokenizer
from encoder.settings import DtypeName, EncoderSettings
from encoder.space import Role
from encoder.tokenizer import Tokenized
from pipelines.actor.prepare import LongTexts
from pipelines.driver.inputs import look_at_inputs
from pipelines.errors import exit_code
from pipelines.sampling.sample import sample_corpus
from pipelines.settings import DEFAULT_UNIT_BYTES, InputSettings, OnLong
from pipelines.source.plan import plan_units
from pipelines.storage import store_errors

if TYPE_CHECKING:
    from encoder.quantization import QuantizedModel

__all__ = ["QuantizeSettings", "main", "quantize"]


class QuantizeSettings(InputSettings):
    """What `twofold quantize` does. Field descriptions are the command's help."""

    input: Locations = Field(
        min_length=1,
        description="Texts like those that will be embedded: files, folders or globs, local or any "
        "fsspec URI",
    )
    to: Location = Field(
        description="Destination: a folder or any fsspec URI; empty, or a mirror of this model "
        "(twofold pull)",
    )
    sample_documents: int = Field(
        400,
        ge=1,
        description="Documents drawn from the input: three quarters calibrate, the others judge",
    )
    sample_bytes: int = Field(
        16 * 2**20,
        ge=2**20,
        description="Stored bytes that are read; a smaller input is read whole",
    )
    role: Role = Field(Role.DOCUMENT, description="Role of the texts, whose prompt they get")


def quantize(settings: QuantizeSettings) -> QuantizedModel:
    """Sample a corpus, quantize a model on it and write both to the destination.

    Raises:
        InvalidInputError: The inputs are not what the settings say; see `quantize_model`.
        ModelLoadError: The model cannot be loaded, converted or quantized.
        BackendError: In int8 the model's vectors are too far from float32; nothing was written.
        StorageError: The store did not answer.
    """
    # It imports torch and OpenVINO, for which `--help` need not wait.
    from encoder.quantization import quantize_model

    # In int8, as the environment may say, the model could only be opened afterwards.
    encoder = settings.encoder.model_copy(update={"dtype": DtypeName.AUTO})
    return quantize_model(encoder, _sample(settings, encoder), settings.to)


def _sample(settings: QuantizeSettings, encoder: EncoderSettings) -> Tokenized:
    sources, columns = look_at_inputs(settings)
    model = describe_model(encoder)
    with store_errors("read the inputs"):
        units = plan_units(sources, unit_bytes=DEFAULT_UNIT_BYTES, tolerate_unreadable=False)
        sample = sample_corpus(
            units,
            columns,
            RoleTokenizer.read(model.space, model.files.tokenizer),
            role=settings.role,
            long_texts=LongTexts(OnLong.TRUNCATE),
            sample_bytes=settings.sample_bytes,
            sample_documents=settings.sample_documents,
        )
    return Tokenized.join([part.tokenized for part in sample.prepared])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        QuantizeSettings,
        argv,
        prog="twofold quantize",
        description="Mirror a model with a graph in int8, calibrated on a sample of a corpus; "
        "--dtype int8 then runs it. Backend, dtype and device have no effect here.",
    )
    quantized = quantize(settings)
    sys.stdout.write(_summary(quantized, settings.to) + "\n")
    return 0


def _summary(quantized: QuantizedModel, destination: str) -> str:
    record = quantized.record
    return (
        f"{destination}: int8 graph {record.graph_sha256[:16]}, calibrated on "
        f"{record.calibration_texts} texts; on {record.held_out_texts} others the cosine to "
        f"float32 is {record.mean_cosine:.5f} in the mean, {record.min_cosine:.5f} at least; "
        f"embedding space {quantized.space.fingerprint}. Run it with --dtype int8"
    )
