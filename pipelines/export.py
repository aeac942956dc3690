"""`twofold export FORMAT`: a model as other tools load it.

    twofold export sentence-transformers --model org/name --output ./model
    twofold export onnx --model org/name --output s3://bucket/models/name-onnx

Every format holds an `embedding_space.json` and was compared with the model when it was written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from command_line.boundary import run_command
from command_line.commands import Command, run_one_of
from command_line.fields import Location
from command_line.parse import parse_settings
from encoder.settings import EncoderSettings
from pipelines.errors import exit_code

if TYPE_CHECKING:
    from encoder.export.export import ExportedModel
    from encoder.export.formats import ExportFormat

__all__ = [
    "COMMANDS",
    "ExportSettings",
    "export_onnx",
    "export_openvino",
    "export_sentence_transformers",
    "main",
]

COMMANDS: dict[str, Command] = {
    "sentence-transformers": Command(
        "pipelines.export:export_sentence_transformers",
        "A folder that plain sentence-transformers loads",
    ),
    "onnx": Command("pipelines.export:export_onnx", "One ONNX graph with both poolings"),
    "openvino": Command("pipelines.export:export_openvino", "One OpenVINO graph, both poolings"),
}


class ExportSettings(BaseModel):
    """What `twofold export FORMAT` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Location = Field(
        description="Destination: a folder or any fsspec URI; it must be empty"
    )
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)


def main(argv: list[str] | None = None) -> int:
    """Run a format's command and return its exit code.

    Args:
        argv: The format's name and its arguments; None for those of the process.
    """
    return run_one_of(COMMANDS, argv, prog="twofold export")


def export_sentence_transformers(argv: Sequence[str] | None = None) -> int:
    """Export a Sentence Transformers folder; return the exit code."""
    return run_command(lambda: _run(argv, "sentence-transformers"), exit_code)


def export_onnx(argv: Sequence[str] | None = None) -> int:
    """Export an ONNX graph; return the exit code."""
    return run_command(lambda: _run(argv, "onnx"), exit_code)


def export_openvino(argv: Sequence[str] | None = None) -> int:
    """Export an OpenVINO graph; return the exit code."""
    return run_command(lambda: _run(argv, "openvino"), exit_code)


def _run(argv: Sequence[str] | None, name: str) -> int:
    settings = parse_settings(
        ExportSettings,
        argv,
        prog=f"twofold export {name}",
        description=f"{COMMANDS[name].summary}, with a record of its embedding space. It is "
        "compared with the model in float32 and written only if it passes. What only runs a model "
        "(backend, dtype, device, batches) has no effect.",
    )
    # Imported when a model is really exported: torch comes with them, for which `--help` need not
    # wait.
    from encoder.export.export import export_model
    from encoder.export.onnx_format import OnnxFormat
    from encoder.export.openvino_format import OpenVinoFormat
    from encoder.export.sentence_transformers_format import SentenceTransformersFormat

    formats: dict[str, ExportFormat] = {
        "sentence-transformers": SentenceTransformersFormat(),
        "onnx": OnnxFormat(),
        "openvino": OpenVinoFormat(),
    }
    exported = export_model(settings.encoder, settings.output, formats[name])
    sys.stdout.write(_summary(exported, settings.output) + "\n")
    return 0


def _summary(exported: ExportedModel, destination: str) -> str:
    space, fidelity = exported.space, exported.fidelity
    roles = f"query {space.query.pooling.value}, document {space.document.pooling.value}"
    checked = (
        "not checked, for neither onnxruntime nor openvino is installed"
        if fidelity is None
        else f"min cosine {fidelity.min_cosine:.7f} to float32 ({fidelity.runtime})"
    )
    return (
        f"{destination}: wrote {len(exported.written)} files; {checked}; embedding space "
        f"{space.fingerprint} ({roles})"
    )
