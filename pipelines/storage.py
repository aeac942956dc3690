"""One door for reading and writing the output folder, local or on any fsspec store.

What the job rests on is `create`: a file appears whole or not at all, and only if nobody had
created it before. On an object store that is one conditional PUT (`If-None-Match: *`); on a local
disk a temporary file, fsync, `os.link` and fsync of the folder. `create` returning False means
"somebody, perhaps an earlier try of ours whose reply was lost, has committed this name".

Knows nothing of shards, spaces or Ray. S3 endpoints and credentials come from the environment that
botocore reads (AWS_ENDPOINT_URL, AWS_PROFILE, ...).
"""

from __future__ import annotations

import contextlib
import io
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from aiohttp import ClientError
from botocore.exceptions import BotoCoreError
from fsspec.implementations.local import LocalFileSystem

from encoder.errors import StorageError, TwofoldError, one_line
from encoder.file_systems import (
    canonical_uri,
    file_system_of,
    what_to_check,
    without_file_protocol,
)
from encoder.whole_file import create_whole, delete_leftovers, replace_whole
from pipelines.store_client import RemoteFile, client_errors

__all__ = ["OUTAGES", "STORE_ERRORS", "Storage", "store_errors"]

# s3fs cuts a PUT of twice `chunksize` into parts; a shard is one conditional PUT up to S3's limit.
_S3_SINGLE_PUT_BYTES = 5 * 2**30
_CONFLICT_WAITS_S = (1.0, 1.0)
OUTAGES = (ConnectionError, TimeoutError, BotoCoreError, ClientError)
"""What says of no file anything: the store or the network fails."""
STORE_ERRORS = (OSError, *OUTAGES)
"""What a store, its client or the network raise."""


class Storage:
    """A folder behind a URI. Holds the URI only, so that it travels to workers."""

    def __init__(self, uri: str) -> None:
        """Name the folder; nothing is opened yet.

        Args:
            uri: Local path or fsspec URI of the folder.
        """
        uri = without_file_protocol(uri)
        if "://" in uri:
            self.uri = canonical_uri(uri.rstrip("/"))
        else:
            self.uri = str(Path(uri).expanduser().resolve())

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        """Pickle the URI, never an open connection."""
        return Storage, (self.uri,)

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a disk of this machine (or mounted on it)."""
        return "://" not in self.uri

    @property
    def _is_s3(self) -> bool:
        return self.uri.startswith("s3://")

    @cached_property
    def _located(self) -> tuple[fsspec.AbstractFileSystem, str]:
        # Else s3fs reads a file above 50 MB by ranges, of which each may be of another version:
        # _index.json is replaced while others read it.
        options = {"max_concurrency": 1} if self._is_s3 else {}
        with self._explained("reach"):
            return file_system_of(self.uri, use_listings_cache=False, **options)

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The fsspec filesystem; listings are never cached."""
        return self._located[0]

    def path(self, relative: str = "") -> str:
        """Return the filesystem's own path of a file below the folder."""
        root = self._located[1]
        return f"{root}/{relative}" if relative else root

    def below(self, relative: str) -> str:
        """Return the URI of a file or folder below the folder."""
        return f"{self.uri}/{relative}"

    def read(self, relative: str) -> bytes | None:
        """Return a file's bytes, all of one version, or None where there is no such file."""
        with self._explained("read", relative):
            try:
                return cast(bytes, self.fs.cat_file(self.path(relative)))
            except FileNotFoundError:
                return None

    def open(self, relative: str, read_ahead_bytes: int | None = None) -> IO[bytes]:
        """Open a file for reading; what a store's client raises then is a StorageError, too.

        Args:
            relative: Path below the root.
            read_ahead_bytes: What an object store's client reads at once at least; None leaves it
                to the client (s3fs: 50 MB, a whole shard however little of it is wanted).

        Raises:
            FileNotFoundError: There is no such file.
        """
        options = {} if read_ahead_bytes is None else {"block_size": read_ahead_bytes}
        with self._explained("open", relative):
            file = self.fs.open(self.path(relative), "rb", **options)
        return cast("IO[bytes]", file if self.is_local else RemoteFile(file, self.below(relative)))

    def size(self, relative: str) -> int:
        """Return a file's size in bytes.

        Raises:
            FileNotFoundError: There is no such file.
        """
        with self._explained("look up", relative):
            return int(self.fs.size(self.path(relative)))

    def sizes(self, folder: str, prefix: str = "") -> dict[str, int]:
        """List a folder: file name -> size in bytes, of the names that begin with `prefix`.

        What lies in folders below it does not count. A folder that does not exist is empty. On S3
        this is one LIST per 1,000 names.
        """
        path = self.path(folder)
        with self._explained("list", folder):
            self.fs.invalidate_cache()
            try:
                if isinstance(self.fs, LocalFileSystem):
                    found = _local_sizes(path, prefix)
                else:
                    deep = path.count("/") + 1
                    # s3fs.find takes a key prefix, so a unit's shards are one small LIST.
                    details = self.fs.find(path, prefix=prefix, detail=True)
                    found = {
                        name.rpartition("/")[2]: int(info["size"] or 0)
                        for name, info in details.items()
                        if name.startswith(f"{path}/{prefix}") and name.count("/") == deep
                    }
            except FileNotFoundError:
                return {}  # the folder itself; a file that vanishes is passed over
        return dict(sorted(found.items()))

    def create(self, relative: str, data: bytes) -> bool:
        """Create a file whole and exclusively.

        Returns:
            True when this call created it, False when the name exists already (which is also the
            case when this call's own request arrived and its reply was lost).

        Raises:
            StorageError: The store did not take the file, and it is not there.
        """
        if isinstance(self.fs, LocalFileSystem):
            with self._explained("write", relative):
                return create_whole(Path(self.path(relative)), io.BytesIO(data))
        options: dict[str, Any] = {"chunksize": _S3_SINGLE_PUT_BYTES} if self._is_s3 else {}
        waits_s = iter(_CONFLICT_WAITS_S)
        while True:
            try:
                self.fs.pipe_file(self.path(relative), data, mode="create", **options)
            except (MemoryError, TwofoldError):
                raise
            except Exception as error:
                # A lost race is FileExistsError on AWS and MinIO, EINVAL on SeaweedFS; a lost
                # reply may be anything. What exists decides.
                if self.exists(relative):
                    return False
                wait_s = next(waits_s, None) if _is_conflict(error) else None
                if wait_s is None:
                    raise StorageError(
                        f"{self.below(relative)} could not be written: {one_line(error)}; "
                        f"{what_to_check(self.uri)}, then start the job again: it goes on where "
                        "it stopped"
                    ) from error
                time.sleep(wait_s)
            else:
                return True

    def replace(self, relative: str, data: bytes) -> None:
        """Write a file over what is there; a reader sees the old or the new one whole."""
        with self._explained("write", relative):
            if isinstance(self.fs, LocalFileSystem):
                replace_whole(Path(self.path(relative)), io.BytesIO(data))
            else:
                self.fs.pipe_file(self.path(relative), data)

    def exists(self, relative: str) -> bool:
        """Whether a file is there now (asked of the store, not of a cache)."""
        with self._explained("look up", relative):
            self.fs.invalidate_cache()
            return bool(self.fs.exists(self.path(relative)))

    def delete(self, relative: str) -> None:
        """Delete a file; one that is gone already is no error."""
        with self._explained("delete", relative), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(relative))

    def delete_leftovers(self, folder: str) -> None:
        """Delete what killed writers left in a folder of a disk; a store keeps no such thing."""
        if self.is_local:
            delete_leftovers(Path(self.path(folder)))

    def probe_exclusive_create(self) -> None:
        """Check that the store refuses to create a name twice.

        Raises:
            StorageError: It does not (an S3-compatible store that ignores If-None-Match), so two
                jobs, or a retry, could overwrite each other's shards.
        """
        name = f"_probe-{uuid.uuid4().hex}"
        # The name is ours alone, so "exists already" here is a reply that was lost.
        self.create(name, b"first")
        try:
            second = self.create(name, b"second")
            content = self.read(name)
        finally:
            self.delete(name)
        if second or content != b"first":
            raise StorageError(
                f"{self.uri} does not honour exclusive creation (If-None-Match: *), which the "
                "commit of a shard rests on; use a store that does (AWS S3, SeaweedFS) or a local "
                "disk"
            )

    def _explained(self, verb: str, relative: str = "") -> AbstractContextManager[None]:
        return client_errors(verb, self.below(relative) if relative else self.uri)


@contextlib.contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Turn what a store raises into one line that says what was being done.

    Raises:
        StorageError: The store did not answer, or refused.
    """
    try:
        yield
    except STORE_ERRORS as error:
        # What remains is a disk's: a store's client has raised a StorageError already.
        raise StorageError(f"cannot {doing}: {one_line(error)}; {what_to_check('')}") from error


def _local_sizes(path: str, prefix: str) -> dict[str, int]:
    found = {}
    for entry in os.scandir(path):
        # Temporary files of other writers come and go while we look.
        if entry.name.startswith(prefix) and not entry.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file():
                    found[entry.name] = entry.stat().st_size
    return found


def _is_conflict(error: Exception) -> bool:
    """Return whether AWS refused an upload for another one at the same time: "retry the upload"."""
    return "ConditionalRequestConflict" in str(error.__cause__)
