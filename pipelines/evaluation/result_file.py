"""A file of results that the command line names, written or refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import StorageError

__all__ = ["result_file"]


@contextmanager
def result_file(path: str, flag: str) -> Iterator[Path]:
    """Give the file to write; its folders are made.

    Args:
        path: The file.
        flag: What named it, for the error: "--json".

    Raises:
        StorageError: It cannot be written.
    """
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield file
    except OSError as error:
        raise StorageError(
            f"expected to write {file}, found {error.strerror}; give another {flag}"
        ) from error
