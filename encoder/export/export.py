"""Exporting a model: its files in another tool's format, the same space recorded beside them.

The folder is put together and checked in a temporary place; only what passed is written to the
destination, the record last. Copied files are links until then: weights are copied once.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from encoder.errors import InvalidInputError
from encoder.export.fidelity import Fidelity
from encoder.export.formats import ExportFormat
from encoder.export.usage import render_readme
from encoder.model.declarations import render_space_file
from encoder.model.description import ModelDescription, describe_model
from encoder.model.destination import ModelDestination, store_errors_explained
from encoder.model.folder import README_FILE, SPACE_FILE, WEIGHTS_INDEX_FILE, is_model_file
from encoder.model.reference import ModelReference
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace

__all__ = ["ExportedModel", "export_model"]

_MODEL_CARD = "MODEL_CARD.md"
_NOT_COPIED = (
    # Said anew for the format, or not part of it.
    SPACE_FILE,
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "router_config.json",
    "*.safetensors",
    WEIGHTS_INDEX_FILE,
    "openvino_int8.*",
    README_FILE,
)


@dataclass(frozen=True)
class ExportedModel:
    """What is at the destination now.

    Attributes:
        space: The embedding space, the model's own.
        written: Names of the files.
        fidelity: What the check found; None where nothing here could run the files.
    """

    space: EmbeddingSpace
    written: tuple[str, ...]
    fidelity: Fidelity | None


def export_model(
    settings: EncoderSettings, destination_uri: str, export_format: ExportFormat
) -> ExportedModel:
    """Write a model in another tool's format to an empty folder or any fsspec URI.

    Args:
        settings: `model` is the reference; poolings, prompts, lengths and `normalize` override
            what the model says. Backend, precision and batches have no effect.
        destination_uri: Folder that is empty or does not exist.
        export_format: Which format.

    Raises:
        InvalidInputError: The destination is not empty, or a package that the format needs is not
            installed.
        StorageError: The destination cannot be written.
        ModelLoadError: The model cannot be loaded or converted.
        BackendError: The export gives other vectors than the model; nothing was written.
    """
    with store_errors_explained("write to", destination_uri):
        destination = ModelDestination(destination_uri)
        _require_empty(destination, destination_uri)
    model = describe_model(settings)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _link_files(model, folder, with_weights=export_format.keeps_weights)
        fidelity = export_format.write(model, folder)
        readme = render_readme(
            model,
            name=export_format.name,
            usage=export_format.usage(model),
            fidelity=fidelity,
        )
        (folder / README_FILE).write_text(readme, encoding="utf-8")
        names = _names(folder)
        with store_errors_explained("write to", destination_uri):
            for name in names:
                destination.write(folder / name, name)
            destination.create(SPACE_FILE, _record(model))
    return ExportedModel(model.space, (*names, SPACE_FILE), fidelity)


def _require_empty(destination: ModelDestination, uri: str) -> None:
    found = destination.file_names()
    if found:
        shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        # An export writes its readme among the first and its record last.
        is_half = README_FILE in found and SPACE_FILE not in found
        unfinished = ", or delete it if an interrupted export left it" if is_half else ""
        raise InvalidInputError(
            f"expected an empty folder as --output, found {len(found)} files in {uri} ({shown}); "
            f"nothing is overwritten: give another folder{unfinished}"
        )


def _link_files(model: ModelDescription, folder: Path, *, with_weights: bool) -> None:
    """Link the files of the model that belong to any format: configuration, tokenizer, licence."""
    source = model.files.folder
    for path in source.iterdir():
        is_left_out = any(fnmatchcase(path.name, pattern) for pattern in _NOT_COPIED)
        if path.is_file() and is_model_file(path.name) and not is_left_out:
            (folder / path.name).symlink_to(path.absolute())
    if with_weights:
        index = [source / WEIGHTS_INDEX_FILE] if len(model.files.weights) > 1 else []
        for path in (*model.files.weights, *index):
            (folder / path.name).symlink_to(path.absolute())
    if (source / README_FILE).is_file():
        # The card describes the weights; its usage code need not fit this folder.
        (folder / _MODEL_CARD).symlink_to((source / README_FILE).absolute())


def _names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def _record(model: ModelDescription) -> bytes:
    return render_space_file(
        model.space,
        reference=ModelReference.parse(model.provenance["model"]).public,
        revision=model.provenance.get("revision"),
    )
