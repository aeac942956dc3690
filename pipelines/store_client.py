"""A store's client, and what it raises: a StorageError, whichever class the client has for it.

Classes tell nothing: an outage is botocore's, aiohttp's, an OSError, or a plain Exception (gcsfs,
azure-core), and a file of GCS that may not be read is an OSError like Arrow's for damaged bytes.
Where an error comes from does tell. What reads a `RemoteFile` and raises an OSError has found fault
with the bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from s3fs.utils import FileExpired

from encoder.errors import StorageError, TwofoldError, one_line
from encoder.file_systems import what_to_check

__all__ = ["RemoteFile", "client_errors"]


@contextmanager
def client_errors(doing: str, uri: str) -> Iterator[None]:
    """Turn what the client of a store, or a disk, raises into one line that says what to do.

    Args:
        doing: As in "cannot read".
        uri: Path or URI of what is read or written.

    Raises:
        StorageError: The store or disk did not answer, or refused.
        OSError: FileNotFoundError, FileExistsError or FileExpired, which do say something of the
            file.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, FileExpired, MemoryError, TwofoldError):
        raise
    except Exception as error:
        if "://" not in uri and not isinstance(error, OSError):
            raise  # a defect: a disk raises nothing else
        raise StorageError(
            f"cannot {doing} {uri}: {one_line(error)}; {what_to_check(uri)}"
        ) from error


class RemoteFile(io.RawIOBase):
    """A file of a store, open for reading; raises what `client_errors` does.

    Args:
        file: As the client opened it.
        uri: Its URI.
    """

    def __init__(self, file: IO[bytes], uri: str) -> None:
        self._file = file
        self._uri = uri

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether the store reads ranges."""
        return self._file.seekable()

    def tell(self) -> int:
        """Return the position, in bytes."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; return it, in bytes."""
        with client_errors("read", self._uri):
            return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, or all that are left."""
        with client_errors("read", self._uri):
            return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as the file goes; return the number of bytes."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Close the client's file."""
        self._file.close()
        super().close()
