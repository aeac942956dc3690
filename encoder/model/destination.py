"""A folder behind a URI to which model files are added, each whole or not at all.

Which files a model has, and in which order they are written, is their writer's business
(`encoder.model.mirror`, `encoder.export`), and so is that nothing is overwritten: they look before
they `write`, and `create` what others could write at the same time.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from encoder.errors import InvalidInputError, StorageError, TwofoldError, one_line
from encoder.file_systems import what_to_check
from encoder.model.declarations import parse_space_file
from encoder.model.folder import SPACE_FILE
from encoder.model.object_store import open_uri
from encoder.space import EmbeddingSpace
from encoder.whole_file import create_whole, replace_whole

__all__ = ["ModelDestination", "store_errors_explained"]

_COMPARE_BYTES = 1 << 20
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


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
        """Copy a local file to the destination; it appears there whole or not at all.

        Another one of its name is replaced: look first (`holds`).
        """
        path = self._path(relative)
        if isinstance(self._fs, LocalFileSystem):
            with local.open("rb") as content:
                replace_whole(Path(path), content)
        else:
            self._fs.put_file(str(local), path)

    def create(self, relative: str, content: bytes) -> bool:
        """Write a small file unless one of its name is there, and return whether that was done.

        Of several writers at the same time one creates it.
        """
        path = self._path(relative)
        try:
            if isinstance(self._fs, LocalFileSystem):
                return _create_local(Path(path), content)
            self._fs.pipe_file(path, content, mode="create")
        except Exception:
            # SeaweedFS calls a file that exists an invalid argument: what is there decides.
            self._fs.invalidate_cache()
            if self._fs.exists(path):
                return False
            raise
        return True

    def _path(self, relative: str) -> str:
        return f"{self._root}/{relative}"


@contextmanager
def store_errors_explained(action: str, uri: str) -> Iterator[None]:
    """Turn what a store's client or a disk raises into one line that says what to do.

    Args:
        action: What is being done, as in "mirror to".
        uri: Where.

    Raises:
        StorageError: It cannot be written there.
    """
    try:
        yield
    except TwofoldError:
        raise
    except Exception as error:
        # Each store's client raises classes of its own; all of them mean: not written.
        reason = one_line(error)[:300]
        raise StorageError(f"cannot {action} {uri} ({reason}); {what_to_check(uri)}") from error


def _create_local(path: Path, content: bytes) -> bool:
    try:
        return create_whole(path, io.BytesIO(content))
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
    # exFAT, a bucket as a folder: no corpus can be there, but a model.
    if path.exists():
        return False
    replace_whole(path, io.BytesIO(content))
    return True


def _same_content(ours: BinaryIO, theirs: BinaryIO) -> bool:
    while block := ours.read(_COMPARE_BYTES):
        if theirs.read(len(block)) != block:
            return False
    return True
