"""Mirroring a model: its files, and an `embedding_space.json` that says which space they span.

The hub's NoInstruct folder says nothing of its asymmetry; a mirror must, since its name is gone.
The record is written last: a folder that has it is whole. Nothing that is there is overwritten.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from encoder.errors import InvalidInputError, SpaceMismatchError, TwofoldError, one_line
from encoder.model.declarations import parse_space_file, render_space_file
from encoder.model.declared_space import load_space
from encoder.model.files import read_model_files
from encoder.model.folder import SPACE_FILE, is_model_file
from encoder.model.object_store import open_uri
from encoder.model.reference import ModelReference, resolve
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace

__all__ = ["MirroredModel", "mirror"]

_COMPARE_BYTES = 1 << 20


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
        InvalidInputError: The destination holds other files, or cannot be written.
    """
    reference = ModelReference.parse(settings.model)
    resolved = resolve(reference, cache_dir)
    space = load_space(read_model_files(resolved.folder), settings, reference)
    record = render_space_file(space, reference=resolved.reference, revision=resolved.revision)
    with _explained(destination_uri):
        destination = _Destination(destination_uri)
        recorded = destination.recorded_space()
        if recorded is not None:
            _refuse_other_space(recorded, space, destination_uri)
            # The record is written last: the files that it speaks of are all there.
            return MirroredModel(space, ())
        missing = [
            relative
            for relative in _files_to_copy(resolved.folder)
            if not destination.holds(resolved.folder / relative, relative)
        ]
        for relative in missing:
            destination.write(resolved.folder / relative, relative)
        with tempfile.TemporaryDirectory() as temporary:
            local = Path(temporary) / SPACE_FILE
            local.write_bytes(record)
            destination.write(local, SPACE_FILE)
    return MirroredModel(space, (*missing, SPACE_FILE))


class _Destination:
    """A folder behind a URI, to which files are added whole."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._fs: fsspec.AbstractFileSystem
        self._fs, self._root = open_uri(uri)

    def recorded_space(self) -> EmbeddingSpace | None:
        """Return the space that stands in the destination's record, if there is one."""
        path = self._path(SPACE_FILE)
        if not self._fs.exists(path):
            return None
        return parse_space_file(self._fs.cat_file(path), f"{self._uri}/{SPACE_FILE}")

    def holds(self, local: Path, relative: str) -> bool:
        """Return whether the file is there already; refuse where another of its name is."""
        path = self._path(relative)
        if not self._fs.exists(path):
            return False
        if self._fs.size(path) == local.stat().st_size:
            with local.open("rb") as ours, self._fs.open(path, "rb") as theirs:
                if _same_content(ours, theirs):
                    return True
        raise InvalidInputError(
            f"{self._uri} holds another {relative} than the model's, and nothing is overwritten; "
            "give an empty folder as --to"
        )

    def write(self, local: Path, relative: str) -> None:
        """Copy a local file to the destination; it appears there whole or not at all."""
        path = self._path(relative)
        if isinstance(self._fs, LocalFileSystem):
            _copy_whole(local, Path(path))
        else:
            self._fs.put_file(str(local), path)

    def _path(self, relative: str) -> str:
        return f"{self._root}/{relative}"


def _files_to_copy(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    # A source's own record is not copied: settings given now may have changed the space.
    return sorted(name for name in names if is_model_file(name) and name != SPACE_FILE)


def _copy_whole(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp, whose files are private: a mirror is there to be shared.
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with staged.open("xb") as copy, source.open("rb") as original:
            shutil.copyfileobj(original, copy)
            copy.flush()
            os.fsync(copy.fileno())
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)


def _same_content(ours: BinaryIO, theirs: BinaryIO) -> bool:
    while block := ours.read(_COMPARE_BYTES):
        if theirs.read(len(block)) != block:
            return False
    return True


def _refuse_other_space(recorded: EmbeddingSpace, space: EmbeddingSpace, uri: str) -> None:
    differences = recorded.differences(space)
    if differences:
        shown = "; ".join(
            f"{name}: {theirs!r} there, {ours!r} here"
            for name, (theirs, ours) in differences.items()
        )
        raise SpaceMismatchError(
            f"{uri} mirrors another embedding space ({shown}); give another folder as --to"
        )


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except TwofoldError:
        raise
    except Exception as error:
        # Each store's client raises classes of its own; all of them mean: not written.
        reason = one_line(error)[:300]
        raise InvalidInputError(
            f"cannot mirror to {uri} ({reason}): check that the place exists, that it may be "
            "written, and the store's credentials and address"
        ) from error
