"""Mirroring a model: its files, and an `embedding_space.json` that says which space they span.

The hub's NoInstruct folder says nothing of its asymmetry; a mirror must, since its name is gone.
The record is created first, which claims the folder: of two that mirror different spaces to it at
the same time one is refused. config.json is created last: a folder without it is refused by who
loads it, and one that has it is whole. Nothing that is there is overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from encoder.differences import shown_differences
from encoder.errors import SpaceMismatchError
from encoder.model.declarations import render_space_file
from encoder.model.declared_space import load_space
from encoder.model.destination import ModelDestination, store_errors_explained
from encoder.model.files import read_model_files
from encoder.model.folder import CONFIG_FILE, INT8_FILES, SPACE_FILE, is_model_file
from encoder.model.reference import ModelReference, resolve
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace

__all__ = ["MirroredModel", "files_to_mirror", "mirror"]


@dataclass(frozen=True)
class MirroredModel:
    """What is at the destination now.

    Attributes:
        space: The embedding space of the mirror.
        copied: Names of the files that were written; empty where the mirror was whole already.
    """

    space: EmbeddingSpace
    copied: tuple[str, ...]


def mirror(
    settings: EncoderSettings, destination_uri: str, cache_dir: Path | None = None
) -> MirroredModel:
    """Copy a model to a folder or any fsspec URI, with a record of its embedding space.

    A copy that was interrupted is continued.

    Args:
        settings: `model` is the reference; poolings, prompts, lengths and `normalize` override
            what the model says, and are recorded.
        destination_uri: Folder that is empty, or holds this very model.
        cache_dir: Where downloads are kept on the way, see `encoder.model.reference.resolve`.

    Raises:
        ModelLoadError: The model cannot be loaded.
        SpaceMismatchError: The destination mirrors another embedding space.
        InvalidInputError: The destination holds other files.
        StorageError: The destination cannot be written.
    """
    reference = ModelReference.parse(settings.model)
    resolved = resolve(reference, cache_dir)
    space = load_space(read_model_files(resolved.folder), settings, reference)
    record = render_space_file(space, reference=reference.public, revision=resolved.revision)
    with store_errors_explained("mirror to", destination_uri):
        destination = ModelDestination(destination_uri)
        missing = files_to_mirror(resolved.folder, space, destination, destination_uri)
        copied: list[str] = []
        if destination.create(SPACE_FILE, record):
            copied.append(SPACE_FILE)
        else:
            _is_recorded(destination, space, destination_uri)
        for relative in missing:
            destination.write(resolved.folder / relative, relative)
            copied.append(relative)
        # Where a whole mirror is, a configuration that the source has changed since is no concern.
        if destination.create(CONFIG_FILE, (resolved.folder / CONFIG_FILE).read_bytes()):
            copied.append(CONFIG_FILE)
    return MirroredModel(space, tuple(copied))


def files_to_mirror(
    folder: Path, space: EmbeddingSpace, destination: ModelDestination, uri: str
) -> list[str]:
    """Return the files that a mirror lacks, but for its record and config.json, in their order.

    Args:
        folder: The model.
        space: Its space under the settings.
        destination: Folder that is empty, or holds this very model.
        uri: The destination, for errors.

    Raises:
        SpaceMismatchError: The destination mirrors another embedding space.
        InvalidInputError: The destination holds other files.
    """
    names = _files_to_copy(folder)
    is_recorded = _is_recorded(destination, space, uri)
    if is_recorded and CONFIG_FILE in destination.file_names():
        # A whole mirror. Only an int8 graph can have been made since.
        names = [name for name in names if name in INT8_FILES]
    elif not is_recorded:
        destination.holds(folder / CONFIG_FILE, CONFIG_FILE)  # or another model's
    return [name for name in names if not destination.holds(folder / name, name)]


def _files_to_copy(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    # A source's own record is not copied: settings given now may have changed the space.
    found = {name for name in names if is_model_file(name)} - {SPACE_FILE, CONFIG_FILE}
    return [*sorted(found.difference(INT8_FILES)), *(name for name in INT8_FILES if name in found)]


def _is_recorded(destination: ModelDestination, space: EmbeddingSpace, uri: str) -> bool:
    """Return whether a mirror has a record; refuse one of another space than is to be there."""
    recorded = destination.recorded_space()
    if recorded is None:
        return False
    if differences := recorded.differences(space):
        shown = shown_differences(differences, "mirror")
        raise SpaceMismatchError(
            f"{uri} mirrors another embedding space ({shown}); give another folder as --to"
        )
    return True
