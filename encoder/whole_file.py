"""A file on a local disk that appears whole or not at all, also if its writer is killed.

What a killed writer leaves is a hidden file `.NAME.<32 hex digits>.tmp` beside the name, until
somebody deletes the leftovers of the folder.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["LEFTOVER_AGE_S", "create_whole", "delete_leftovers", "replace_whole"]

LEFTOVER_AGE_S = 24 * 60 * 60
"""No writer takes so long for a file: one that old has died."""
_STAGED = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def create_whole(target: Path, content: BinaryIO) -> bool:
    """Create a file and the folders above it; return False where the name exists already.

    Raises:
        OSError: It cannot be written, or the file system has no hard links.
    """
    with _staged(target, content) as staged:
        try:
            os.link(staged, target)
        except FileExistsError:
            return False
        _sync_folder(target.parent)
    return True


def replace_whole(target: Path, content: BinaryIO) -> None:
    """Write a file over what is there, and create the folders above it.

    Raises:
        OSError: It cannot be written; what was there is.
    """
    with _staged(target, content) as staged:
        staged.replace(target)
        _sync_folder(target.parent)


def delete_leftovers(folder: Path) -> None:
    """Delete what writers left in a folder that were killed a day ago or earlier.

    What cannot be deleted is in nobody's way.
    """
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            is_old = time.time() - path.stat().st_mtime > LEFTOVER_AGE_S
            if is_old and _STAGED.fullmatch(path.name):
                path.unlink()


@contextmanager
def _staged(target: Path, content: BinaryIO) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp, whose files are private: models and shards are there to be shared.
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with staged.open("xb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        yield staged
    finally:
        staged.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
