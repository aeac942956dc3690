"""A folder behind a URI to which model files are added, each whole or not at all.

Nothing that is there is ever overwritten. Which files a model has, and in which order they are
written, is their writer's business: `encoder.model.mirror` and `encoder.export`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from encoder.errors import InvalidInputError, TwofoldError, one_line
from encoder.model.declarations import parse_space_file
from encoder.model.folder import SPACE_FILE
from encoder.model.object_store import open_uri
from encoder.space import EmbeddingSpace

__all__ = ["ModelDestination", "store_errors_explained"]

_COMPARE_BYTES = 1 << 20


class ModelDestination:
    """A folder, local or on any fsspec filesystem, that receives model files.

    Args:
        uri: Where it is; it need not exist yet.

    Raises:
        ModelLoadError: The protocol is unknown, or its filesystem is not installed.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._fs: fsspec.AbstractFileSystem
        self._fs, self._root = open_uri(uri)

    def file_names(self) -> list[str]:
        """Return the files that are there already, by their path relative to the folder."""
        if self._fs.isfile(self._root):
            raise InvalidInputError(f"{self._uri} is a file, expected a folder; give another one")
        return sorted(path[len(self._root) :].lstrip("/") for path in self._fs.find(self._root))

    def recorded_space(self) -> EmbeddingSpace | None:
        """Return the space that stands in the destination's record, if there is one."""
        path = self._path(SPACE_FILE)
        if not self._fs.exists(path):
            return None
        return parse_space_file(self._fs.cat_file(path), f"{self._uri}/{SPACE_FILE}")

    def holds(self, local: Path, relative: str) -> bool:
        """Return whether the file is there already.

        Raises:
            InvalidInputError: Another file of its name is there.
        """
        path = self._path(relative)
        if not self._fs.exists(path):
            return False
        if self._fs.size(path) == local.stat().st_size:
            with local.open("rb") as ours, self._fs.open(path, "rb") as theirs:
                if _same_content(ours, theirs):
                    return True
        raise InvalidInputError(
            f"{self._uri} holds another {relative} than the model's, and nothing is overwritten; "
            "give an empty folder"
        )

    def write(self, local: Path, relative: str) -> None:
        """Copy a local file to the destination; it appears there whole or not at all."""
        path = self._path(relative)
        if isinstance(self._fs, LocalFileSystem):
            _copy_whole(local, Path(path))
        else:
            self._fs.put_file(str(local), path)

    def write_record(self, record: bytes) -> None:
        """Write `embedding_space.json`; what it speaks of is there."""
        with tempfile.TemporaryDirectory() as temporary:
            local = Path(temporary) / SPACE_FILE
            local.write_bytes(record)
            self.write(local, SPACE_FILE)

    def _path(self, relative: str) -> str:
        return f"{self._root}/{relative}"


@contextmanager
def store_errors_explained(action: str) -> Iterator[None]:
    """Turn what a store's client raises into InvalidInputError.

    Args:
        action: What is being done, as in "mirror to s3://bucket/models/x".
    """
    try:
        yield
    except TwofoldError:
        raise
    except Exception as error:
        # Each store's client raises classes of its own; all of them mean: not written.
        reason = one_line(error)[:300]
        raise InvalidInputError(
            f"cannot {action} ({reason}): check that the place exists, that it may be "
            "written, and the store's credentials and address"
        ) from error


def _copy_whole(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp, whose files are private: a model folder is there to be shared.
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
