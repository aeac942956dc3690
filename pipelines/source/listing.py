"""Finding the files that a path, URI or pattern names, on a disk or a store.

Below a folder or pattern, names that begin with `_` or `.` are passed over (`_SUCCESS`,
`_temporary/`, `.part-0.crc`), as Spark and pyarrow do. Knows nothing of formats.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from encoder.errors import InvalidInputError, one_line
from encoder.file_systems import file_system_of
from pipelines.store_client import client_errors

__all__ = ["files_of", "is_local", "open_filesystem"]

_MAGIC = re.compile(r"[*?\[]")
_HIDDEN = ("_", ".")
_TABLE_LOGS = {"_delta_log", ".hoodie"}
_IN_TABLE_LOG = re.compile(f"/({'|'.join(map(re.escape, _TABLE_LOGS))})(?=/)")


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
        InvalidInputError: Nothing is there, or no files that count.
        StorageError: The store or the disk does not list it.
    """
    fs, path = open_filesystem(root)
    is_pattern = bool(_MAGIC.search(path)) and not (is_local(root) and os.path.lexists(path))
    try:
        with client_errors("list the input", root):
            fs.invalidate_cache()
            found = _match(fs, path) if is_pattern else _find(fs, path, base=path)
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"input {root}: expected a file, a folder or a pattern, found nothing there"
            f"{'' if is_local(root) else ', or no such bucket'}"
        ) from error
    if not found:
        what = "pattern matches no files" if is_pattern else "folder holds no files"
        raise InvalidInputError(f"input {root}: this {what} (names with _ or . first do not count)")
    return {_uri(fs, root, name): info for name, info in found.items()}


def _find(fs: fsspec.AbstractFileSystem, path: str, base: str) -> dict[str, Mapping[str, Any]]:
    """Return the visible files at or below a path."""
    if isinstance(fs, LocalFileSystem):
        below = _walk([path])
    else:
        below = _whole(fs, fs.find(path, detail=True))
        for name in below:
            folder, *inner = re.split(_IN_TABLE_LOG, name[len(base) :])
            if inner and not _is_hidden(folder, ""):
                _check_no_table(str(fs.unstrip_protocol(f"{base}{folder}")), inner)
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


def _walk(paths: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Return what is visible at or below local paths; links are followed (fsspec's `find`: not).

    Each folder once, and no link to a file beside it: by its own name where that is there, by a
    link's otherwise. Loops end.
    """
    walk = _Walk(sorted(paths, key=lambda path: (Path(path).is_symlink(), path)))
    for top in walk.tops:  # links to folders come to them meanwhile
        if Path(top).is_dir():
            walk.enter(top)
        else:
            walk.take(top, os.path.realpath(top))
    # Of several to one file that is not listed itself, each: they may be in two partitions.
    linked = [path for path in walk.links if os.path.realpath(path) not in walk.seen]
    return {path: {"type": "file"} for path in [*walk.files, *linked] if _is_file(path)}


@dataclass
class _Walk:
    """What is found on the way through local folders.

    Attributes:
        tops: Paths to walk.
        files: Files by their own names, or below a link to a folder.
        links: To files.
        seen: Real paths of folders and files.
    """

    tops: list[str]
    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def enter(self, top: str) -> None:
        """Take what is in a folder and in those below it."""
        for folder, folders, names in os.walk(top, onerror=_raise):
            real = os.path.realpath(folder)
            if real in self.seen:
                folders.clear()
                continue
            self.seen.add(real)
            _check_no_table(folder, folders)
            folders[:] = _visible(folders)
            below = (f"{folder}/{name}" for name in folders)
            self.tops += [path for path in below if Path(path).is_symlink()]
            for name in _visible(names):
                self.take(f"{folder}/{name}", f"{real}/{name}")

    def take(self, path: str, real: str) -> None:
        """Take a file, or a link to one, whose real path is `real`."""
        if Path(path).is_symlink():
            self.links.append(path)
        elif real not in self.seen:
            self.seen.add(real)
            self.files.append(path)


def _visible(names: Iterable[str]) -> list[str]:
    """Return the names that are not hidden, sorted. What is, may be what a visible link means."""
    return sorted(name for name in names if not _is_hidden(name, ""))


def _is_file(path: str) -> bool:
    # A link to nothing counts as a file, so that reading its version tells. Sockets and pipes are
    # neither.
    return Path(path).is_file() or Path(path).is_symlink()


def _check_no_table(folder: str, names: Iterable[str]) -> None:
    """Refuse a folder of a table whose log says which of its files count."""
    if logs := sorted(_TABLE_LOGS & set(names)):
        raise InvalidInputError(
            f"input {folder}: expected files that all count, found a table with a log ({logs[0]}), "
            "which says what of them is deleted or replaced; export a version of it into a folder "
            f"of its own, or give a pattern ({folder}/**/*.parquet) if really all files are wanted"
        )


def _raise(error: OSError) -> None:
    raise error


def _match(fs: fsspec.AbstractFileSystem, pattern: str) -> dict[str, Mapping[str, Any]]:
    """Return the visible files that a pattern matches, and those below folders it matches."""
    base = _MAGIC.split(pattern, maxsplit=1)[0].rpartition("/")[0]
    names_hidden = _is_hidden(pattern, base)
    matched = {
        name: info
        for name, info in _whole(fs, fs.glob(pattern, detail=True)).items()
        if names_hidden or not _is_hidden(name, base)
    }
    if isinstance(fs, LocalFileSystem):
        return _walk(matched)
    found: dict[str, Mapping[str, Any]] = {}
    for name, info in matched.items():
        if info["type"] == "directory":
            found.update(_find(fs, name, base=name))
        elif not name.endswith("/"):
            found[name] = info
    return found


def _whole(
    fs: fsspec.AbstractFileSystem, listed: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return a listing in which each entry says its type, and a file its size: HTTP's do not."""
    return {
        name: info
        if info.get("size") is not None or info.get("type") == "directory"
        else fs.info(name)
        for name, info in listed.items()
    }


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
