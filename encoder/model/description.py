"""A model as its files describe it: its space and where it came from, without loading it.

This is what a driver needs of a model; it imports neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from encoder.model.declared_space import load_space
from encoder.model.files import ModelFiles, read_model_files
from encoder.model.int8_record import read_int8_record
from encoder.model.reference import ModelReference, resolve
from encoder.settings import DtypeName, EncoderSettings
from encoder.space import EmbeddingSpace

__all__ = ["ModelDescription", "describe_model"]


@dataclass(frozen=True)
class ModelDescription:
    """A model's files and space.

    Attributes:
        reference: The model, at the commit that the hub gave: whoever loads it later is told this.
        files: The model's local files.
        space: The embedding space under the settings.
        provenance: The reference, the revision where the hub gave one, and with dtype int8 the
            digest of the graph.
    """

    reference: ModelReference
    files: ModelFiles
    space: EmbeddingSpace
    provenance: dict[str, str]


def describe_model(settings: EncoderSettings) -> ModelDescription:
    """Find the model that the settings name and read which space it spans.

    Raises:
        ModelLoadError: The model cannot be found, does not say its space, or is asked for in
            int8 and has no such graph.
    """
    reference = ModelReference.parse(settings.model)
    resolved = resolve(reference)
    files = read_model_files(resolved.folder)
    provenance = {"model": str(reference)}
    if resolved.revision is not None:
        provenance["revision"] = resolved.revision
    if settings.dtype is DtypeName.INT8:
        provenance["int8_graph"] = read_int8_record(resolved.folder).graph_sha256
    return ModelDescription(
        replace(reference, revision=resolved.revision),
        files,
        load_space(files, settings, reference),
        provenance,
    )
