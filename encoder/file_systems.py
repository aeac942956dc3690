"""From a URI to a file system and the path in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import fsspec
from fsspec.archive import AbstractArchiveFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.cached import CachingFileSystem
from fsspec.implementations.local import LocalFileSystem

__all__ = [
    "PASSWORD_REFUSED",
    "canonical_uri",
    "file_system_of",
    "file_version",
    "has_password",
    "what_to_check",
    "without_file_protocol",
]

PASSWORD_REFUSED = (
    "expected an address without a password, found one with it; give it by the variables of the "
    "store, or of fsspec (FSSPEC_FTP_PASSWORD)"
)

_CHAIN = "::"
_USER_AND_PASSWORD = re.compile(r"(?P<protocol>[\w+.-]+)://[^/@:]*:[^/@]+@")
_COLON_IS_NO_PASSWORD = ("github", "git")
"""`github://org:repo@branch/`, `git://path:ref@repo`."""
_CHAINED = (AbstractArchiveFileSystem, CachingFileSystem)
"""Of these a `::` is what is asked for: `zip://::/folder/model.zip`."""


def file_system_of(uri: str, **options: object) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URI and the path in it, as `fsspec.core.url_to_fs` does.

    A `::` behind the protocol is part of a name: fsspec would read what comes after it as another
    file system, and `s3://bucket/std::vector.txt` as the object `bucket/std`.

    Args:
        uri: Local path, or URI of any protocol that fsspec knows.
        **options: Of the file system.

    Raises:
        ValueError: The protocol is unknown.
        ImportError: Its file system is not installed.
    """
    protocol, separator, rest = uri.partition("://")
    if not separator:
        protocol, rest = "file", uri
    is_name = _CHAIN in rest and _CHAIN not in protocol
    of_protocol = fsspec.get_filesystem_class(protocol) if is_name else None
    if of_protocol is None or issubclass(of_protocol, _CHAINED):
        fs, path = url_to_fs(uri, **options)
        return fs, str(path)
    # Both are what a file system gives fsspec for this very purpose.
    options |= of_protocol._get_kwargs_from_urls(uri)
    return fsspec.filesystem(protocol, **options), str(of_protocol._strip_protocol(uri))


def file_version(info: Mapping[str, Any]) -> str:
    """Return the version of a remote file: its ETag, else size and time of the last change.

    Args:
        info: Of a listing, as fsspec gives it.
    """
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    if tag:
        return str(tag).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("created") or 0
    # A store may give a datetime for one file and seconds in a listing.
    seconds = changed.timestamp() if isinstance(changed, datetime) else changed
    return f"{info['size']}-{seconds}"


def has_password(uri: str) -> bool:
    """Return whether a password stands in a URI, which would be in footers and messages with it."""
    found = _USER_AND_PASSWORD.finditer(uri)
    return any(match["protocol"] not in _COLON_IS_NO_PASSWORD for match in found)


def without_file_protocol(uri: str) -> str:
    """Return the path of a `file://` or `local://` URI; every other URI or path as it is."""
    protocol, separator, path = uri.partition("://")
    return path if separator and protocol in LocalFileSystem.protocol else uri


def what_to_check(uri: str) -> str:
    """Return what a user can do about a path or URI that cannot be reached, read or written."""
    if "://" in without_file_protocol(uri):
        return (
            "check that the bucket is there, the credentials or the role and, for S3, AWS_REGION "
            "and AWS_ENDPOINT_URL"
        )
    return "check that it may be read and written, and that the disk has space"


def canonical_uri(uri: str) -> str:
    """Return a URI with the first name of its protocol (`s3a://` is `s3://`), as listings have it.

    Args:
        uri: URI of any protocol. One that is part of a path (`https://`), or that fsspec does not
            know, stays.
    """
    protocol, _, rest = uri.partition("://")
    try:
        of_protocol = fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError):
        return uri
    names = of_protocol.protocol
    path = str(of_protocol._strip_protocol(uri))
    if isinstance(names, str) or path.startswith(f"{protocol}://"):
        return uri
    return f"{names[0]}://{rest}"
