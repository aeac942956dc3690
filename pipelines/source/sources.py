"""Which files the job reads, and which version of each: listing of inputs, nothing of their rows.

An input is a file, a folder (read recursively) or a pattern (`*`, `**`, `?`, `[]`), local or any
fsspec URI. What `pipelines.source.listing` finds there is either of a known format or an error, so
no file is left out unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import Any
from urllib.parse import unquote

from encoder.errors import InvalidInputError
from encoder.file_systems import canonical_uri, file_version, without_file_protocol
from pipelines.source.listing import files_of, is_local, open_filesystem
from pipelines.source.units import Format, Source
from pipelines.store_client import client_errors

__all__ = ["current_version", "list_sources", "normalised", "roots_of"]

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

_NAMED_IN_ERRORS = 3


def list_sources(
    inputs: Sequence[str], input_format: Format | None, written: str | None = None
) -> list[Source]:
    """Return the files that the inputs name, sorted by URI, each once.

    Args:
        inputs: Files, folders or patterns; of two that hold the same file the first is its `root`.
        input_format: Format of every file; None takes it from each file's name.
        written: Folder whose files are no input though it lies in one, unless that names it, or
            what is in it.

    Raises:
        InvalidInputError: An input names nothing, or holds files whose format their names do not
            tell.
        StorageError: An input cannot be listed.
    """
    is_written = _Below(written)
    sources: dict[str, Source] = {}
    unknown: list[str] = []
    for argument in inputs:
        root = normalised(argument)
        names_written = is_written(f"{root}/")
        for uri, info in files_of(root).items():
            if is_written(uri) and not names_written:
                continue
            file_format, compression = _format_of(uri)
            file_format = input_format or file_format
            if file_format is None:
                unknown.append(uri)
            elif uri not in sources:
                sources[uri] = _source(uri, info, file_format, compression, root)
    if unknown:
        raise InvalidInputError(
            f"expected names that end in {', '.join(_FORMATS)} (.gz, .zst); found {_some(unknown)}:"
            " convert or rename these files, leave them out by a pattern or, where the command has"
            " that flag, give --input-format"
        )
    if not sources:
        raise InvalidInputError(
            f"expected documents in {_some(list(inputs))}, found what an earlier run has written "
            "alone"
        )
    _check_partitions(list(sources.values()))
    return [sources[uri] for uri in sorted(sources)]


def current_version(source_uri: str) -> tuple[str, int]:
    """Return (version, size in bytes) of a file as it is now, never from a listing cache.

    Raises:
        FileNotFoundError: The file is gone, or a folder now.
        OSError: A disk does not give it.
        StorageError: The store did not answer.
    """
    if is_local(source_uri):
        status = Path(source_uri).stat()
        if not S_ISREG(status.st_mode):
            raise FileNotFoundError(source_uri)
        return f"{status.st_size}-{status.st_mtime_ns}", status.st_size
    fs, path = open_filesystem(source_uri)
    with client_errors("look up", source_uri):
        fs.invalidate_cache(path)
        info = fs.info(path)
    if info.get("type") == "directory":
        raise FileNotFoundError(source_uri)
    return file_version(info), int(info["size"])


def normalised(argument: str) -> str:
    """Return an absolute local path, or the URI without a trailing slash.

    Args:
        argument: A path or URI as a user gives it.
    """
    uri = without_file_protocol(argument)
    if is_local(uri):
        return os.path.abspath(Path(uri).expanduser())  # noqa: PTH100  (resolve follows links)
    return canonical_uri(uri.rstrip("/"))


def roots_of(arguments: Iterable[str]) -> set[str]:
    """Return a run's inputs as sources name them.

    Not the roots of its sources: of two inputs that hold a file only the first is its root.
    """
    return {normalised(argument) for argument in arguments}


class _Below:
    """Whether a file lies below a folder, however links in their paths name them.

    Args:
        folder: Path or URI, or None, below which nothing lies.
    """

    def __init__(self, folder: str | None) -> None:
        # Asked of each folder once, not of each file.
        self._real_path = cache(os.path.realpath)
        self._folder = None if folder is None else f"{self._real(normalised(folder))}/"

    def __call__(self, uri: str) -> bool:
        if self._folder is None:
            return False
        parent, slash, name = uri.rpartition("/")
        return f"{self._real(parent)}{slash}{name}".startswith(self._folder)

    def _real(self, folder: str) -> str:
        # Of what lies right below the root the folder is "", which would be the working directory.
        return self._real_path(folder) if folder and is_local(folder) else folder


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
        try:
            version, size_bytes = current_version(uri)
        except FileNotFoundError as error:
            raise InvalidInputError(f"{uri}: expected a file, found a link to nothing") from error
    else:
        if info["size"] is None:
            raise InvalidInputError(
                f"{uri}: expected a file of known size, and its server says none; copy it first"
            )
        version, size_bytes = file_version(info), int(info["size"])
    return Source(
        uri=uri,
        version=version,
        size_bytes=size_bytes,
        format=file_format,
        compression=compression,
        partition=_partition_of(uri),
        root=root,
    )


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
