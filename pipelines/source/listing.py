"""Finding the files that a path, URI or pattern names, on a disk or a store.

Below a folder or pattern, names that begin with `_` or `.` are passed over (`_SUCCESS`,
`_temporary/`, `.part-0.crc`), as Spark and pyarrow do. Knows nothing of formats.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.implementations.local import LocalFileSystem

from encoder.errors import InvalidInputError, one_line
from encoder.file_systems import file_system_of

__all__ = ["files_of", "is_local", "open_filesystem"]

_MAGIC = re.compile(r"[*?\[]")
_HIDDEN = ("_", ".")


def is_local(uri: str) -> bool:
    """Return whether a normalised URI is a path of this machine."""
    return "://" not in uri


def open_filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a normalised URI and the path in it.

    Raises:
        InvalidInputError: No file system is known for the URI's protocol.
    """
    if is_local(uri):
        return fsspec.filesystem("file"), uri
    try:
        return file_system_of(uri, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise InvalidInputError(f"input {uri}: {one_line(error)}") from error


def files_of(root: str) -> dict[str, Mapping[str, Any]]:
    """Return {uri: fsspec info} of the files that one input names.

    The info of a local file says only that it is one.

    Args:
        root: Absolute path or URI of a file, a folder or a pattern.

    Raises:
        InvalidInputError: Nothing is there, or the store does not list it.
    """
    fs, path = open_filesystem(root)
    try:
        fs.invalidate_cache()
        is_pattern = bool(_MAGIC.search(path)) and not (is_local(root) and os.path.lexists(path))
        found = _match(fs, path) if is_pattern else _find(fs, path, base=path)
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"input {root}: expected a file, a folder or a pattern, found nothing there"
        ) from error
    except (OSError, BotoCoreError) as error:
        raise InvalidInputError(
            f"input {root}: cannot be listed: {one_line(error)};"
            " check the name, the credentials and the endpoint"
        ) from error
    if not found:
        what = "pattern matches no files" if is_pattern else "folder holds no files"
        raise InvalidInputError(f"input {root}: this {what} (names with _ or . first do not count)")
    return {_uri(fs, root, name): info for name, info in found.items()}


def _find(fs: fsspec.AbstractFileSystem, path: str, base: str) -> dict[str, Mapping[str, Any]]:
    """Return the visible files at or below a path."""
    below = _walk(path) if isinstance(fs, LocalFileSystem) else fs.find(path, detail=True)
    found = {
        name: info
        for name, info in below.items()
        # Stores list "folders" that a console created as empty objects with a trailing slash.
        if info["type"] == "file" and not name.endswith("/")
        if not _is_hidden(name, base)
    }
    if not found and not fs.exists(path):
        raise FileNotFoundError(path)
    return found


def _walk(path: str) -> dict[str, Mapping[str, Any]]:
    """Return what is at or below a local path; links are followed, which fsspec's `find` does not.

    A link to a folder that was seen already is passed over, so that loops end.
    """
    if not Path(path).is_dir():  # sockets and pipes are neither
        # A link to nothing counts as a file, so that reading its version tells.
        is_file = Path(path).is_file() or Path(path).is_symlink()
        return {path: {"type": "file"}} if is_file else {}
    found: dict[str, Mapping[str, Any]] = {}
    seen = {os.path.realpath(path)}
    for folder, folders, files in os.walk(path, followlinks=True, onerror=_raise):
        unseen = {name: os.path.realpath(f"{folder}/{name}") for name in sorted(folders)}
        folders[:] = [name for name, real in unseen.items() if real not in seen]
        seen.update(unseen.values())
        for name in files:
            found.update(_walk(f"{folder}/{name}"))
    return found


def _raise(error: OSError) -> None:
    raise error


def _match(fs: fsspec.AbstractFileSystem, pattern: str) -> dict[str, Mapping[str, Any]]:
    """Return the visible files that a pattern matches, and those below folders it matches."""
    base = _MAGIC.split(pattern, maxsplit=1)[0].rpartition("/")[0]
    names_hidden = _is_hidden(pattern, base)
    found: dict[str, Mapping[str, Any]] = {}
    for name, info in fs.glob(pattern, detail=True).items():
        if _is_hidden(name, base) and not names_hidden:
            continue
        if isinstance(fs, LocalFileSystem) or info["type"] == "directory":
            found.update(_find(fs, name, base=name))
        elif not name.endswith("/"):
            found[name] = info
    return found


def _is_hidden(name: str, base: str) -> bool:
    """Return whether a part of a path below its base is hidden (but `_key=value/` is not)."""
    below = name[len(base) :].strip("/")
    return any(part.startswith(_HIDDEN) and "=" not in part for part in below.split("/"))


def _uri(fs: fsspec.AbstractFileSystem, root: str, name: str) -> str:
    uri = name if is_local(root) else str(fs.unstrip_protocol(name))
    try:
        uri.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"input {root}: expected file names in UTF-8, found {os.fsencode(uri)!r}: rename it"
        ) from error
    return uri
