"""Which files the job reads, and which version of each: listing of inputs, nothing of their rows.

An input is a file, a folder (read recursively) or a pattern (`*`, `**`, `?`, `[]`), local or any
fsspec URI. Below a folder or pattern, names that begin with `_` or `.` are passed over
(`_SUCCESS`, `_temporary/`, `.part-0.crc`), as Spark and pyarrow do; everything else is either of a
known format or an error, so no file is left out unnoticed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.core import url_to_fs

from encoder.errors import InvalidInputError
from pipelines.units import Format, Source

__all__ = ["current_version", "is_local", "list_sources", "open_filesystem"]

_FORMATS = {
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_COMPRESSED_JSON = ".json"
"""x.json.gz is JSON lines in every public corpus; a plain x.json often is one document, so that
one needs --input-format."""

_MAGIC = re.compile(r"[*?\[]")
_HIDDEN = ("_", ".")
_NAMED_IN_ERRORS = 3


def list_sources(inputs: Sequence[str], input_format: Format | None) -> list[Source]:
    """Return the files that the inputs name, sorted by URI, each once.

    Args:
        inputs: Files, folders or patterns; of two that hold the same file the first is its `root`.
        input_format: Format of every file; None takes it from each file's name.

    Raises:
        InvalidInputError: An input names nothing, cannot be listed, or holds files whose format
            their names do not tell.
    """
    sources: dict[str, Source] = {}
    unknown: list[str] = []
    for argument in inputs:
        root = _normalised(argument)
        for uri, info in _files_of(root).items():
            file_format, compression = _format_of(uri)
            file_format = input_format or file_format
            if file_format is None:
                unknown.append(uri)
            elif uri not in sources:
                sources[uri] = _source(uri, info, file_format, compression, root)
    if unknown:
        raise InvalidInputError(
            f"expected names that end in {', '.join(_FORMATS)} (.gz, .zst); found {_some(unknown)}:"
            " give --input-format, or a pattern that leaves these files out"
        )
    _check_partitions(list(sources.values()))
    return [sources[uri] for uri in sorted(sources)]


def current_version(source_uri: str) -> tuple[str, int]:
    """Return (version, size in bytes) of a file as it is now, never from a listing cache.

    Raises:
        OSError: The file is gone (FileNotFoundError) or the store did not answer.
    """
    if is_local(source_uri):
        status = Path(source_uri).stat()
        return f"{status.st_size}-{status.st_mtime_ns}", status.st_size
    fs, path = open_filesystem(source_uri)
    fs.invalidate_cache(path)
    info = fs.info(path)
    return _version(info), int(info["size"])


def is_local(uri: str) -> bool:
    """Return whether a normalised URI is a path of this machine."""
    return "://" not in uri


def open_filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a normalised URI and the path in it.

    Raises:
        InvalidInputError: No file system is known for the URI's protocol.
    """
    if is_local(uri):
        # Not through `url_to_fs`, which would read "a::b" in a file's name as a chain of systems.
        return fsspec.filesystem("file"), uri
    try:
        fs, path = url_to_fs(uri, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise InvalidInputError(f"input {uri}: {_one_line(error)}") from error
    return fs, str(path)


def _normalised(argument: str) -> str:
    """Return an absolute local path, or the URI without a trailing slash."""
    local = argument.removeprefix("file://") if argument.startswith("file://") else argument
    if is_local(local):
        return os.path.abspath(Path(local).expanduser())  # noqa: PTH100  (resolve follows links)
    return local.rstrip("/")


def _files_of(root: str) -> dict[str, Mapping[str, Any]]:
    """Return {uri: fsspec info} of the files that one input names."""
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
            f"input {root}: cannot be listed: {type(error).__name__}: {_one_line(error)};"
            " check the name, the credentials and the endpoint"
        ) from error
    if not found:
        what = "pattern matches no files" if is_pattern else "folder holds no files"
        raise InvalidInputError(f"input {root}: this {what} (names with _ or . first do not count)")
    return {_uri(fs, root, name): info for name, info in found.items()}


def _find(fs: fsspec.AbstractFileSystem, path: str, base: str) -> dict[str, Mapping[str, Any]]:
    """Return the visible files at or below a path."""
    found = {
        name: info
        for name, info in fs.find(path, detail=True).items()
        # Stores list "folders" that a console created as empty objects with a trailing slash.
        if info["type"] == "file" and not name.endswith("/")
        if not _is_hidden(name, base)
    }
    if not found and not fs.exists(path):
        raise FileNotFoundError(path)
    return found


def _match(fs: fsspec.AbstractFileSystem, pattern: str) -> dict[str, Mapping[str, Any]]:
    """Return the visible files that a pattern matches, and those below folders it matches."""
    base = _MAGIC.split(pattern, maxsplit=1)[0].rpartition("/")[0]
    names_hidden = _is_hidden(pattern, base)
    found: dict[str, Mapping[str, Any]] = {}
    for name, info in fs.glob(pattern, detail=True).items():
        if _is_hidden(name, base) and not names_hidden:
            continue
        if info["type"] == "directory":
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


def _format_of(uri: str) -> tuple[Format | None, str | None]:
    """Return (format, compression) as a file's name tells them."""
    stem, ending = os.path.splitext(uri.rpartition("/")[2].lower())  # noqa: PTH122
    compression = _COMPRESSIONS.get(ending)
    if compression is None:
        return _FORMATS.get(ending), None
    inner = os.path.splitext(stem)[1]  # noqa: PTH122
    if inner == _COMPRESSED_JSON:
        return Format.JSONL, compression
    inner_format = _FORMATS.get(inner)
    # Parquet compresses its pages itself and cannot be read from a stream.
    return (None if inner_format is Format.PARQUET else inner_format), compression


def _source(
    uri: str,
    info: Mapping[str, Any],
    file_format: Format,
    compression: str | None,
    root: str,
) -> Source:
    if file_format is Format.PARQUET and compression is not None:
        raise InvalidInputError(
            f"{uri}: expected a Parquet file, found one in {compression}: unpack it"
        )
    if is_local(uri):
        version, size_bytes = current_version(uri)
    else:
        version, size_bytes = _version(info), int(info["size"])
    return Source(
        uri=uri,
        version=version,
        size_bytes=size_bytes,
        format=file_format,
        compression=compression,
        partition=_partition_of(uri),
        root=root,
    )


def _version(info: Mapping[str, Any]) -> str:
    """Return the version of a remote file: its ETag, else size and time of the last change."""
    tag = info.get("ETag") or info.get("etag")
    if tag:
        return str(tag).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("created") or 0
    # A store may give a datetime for one file and seconds in a listing.
    seconds = changed.timestamp() if isinstance(changed, datetime) else changed
    return f"{info['size']}-{seconds}"


def _partition_of(uri: str) -> tuple[tuple[str, str], ...]:
    """Return the hive partition values in a path, of all its folders.

    The whole path counts, not what lies below the input, so that a file has the same columns
    however it was named.
    """
    pairs = (folder.partition("=") for folder in uri.split("/")[:-1])
    return tuple(
        (unquote(name), unquote(value)) for name, equals, value in pairs if equals and name
    )


def _check_partitions(sources: Sequence[Source]) -> None:
    """Refuse sources with different partition columns: one corpus has one set of columns."""
    if not sources:
        return
    first = sources[0]
    names = [name for name, _ in first.partition]
    for source in sources:
        found = [name for name, _ in source.partition]
        if found != names:
            raise InvalidInputError(
                f"expected the same partition folders for every file, found {names} in {first.uri}"
                f" and {found} in {source.uri}: embed them into two outputs"
            )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:_NAMED_IN_ERRORS])
    more = len(names) - _NAMED_IN_ERRORS
    return shown if more <= 0 else f"{shown} and {more} more"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
