"""Model folders behind a URI (s3://, gs://, memory://, ...): listed, and downloaded once.

A download lands in a folder named after the URI and the versions of its files, so a model that is
replaced in the bucket is another folder here. The folder appears whole, by one rename: processes
that download the same model at once do so side by side, and the first to finish wins. What one
leaves that is killed is deleted by a download a day later.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from encoder.errors import ModelLoadError, one_line
from encoder.file_systems import file_system_of, file_version, what_to_check
from encoder.model.folder import is_model_file
from encoder.whole_file import LEFTOVER_AGE_S

__all__ = ["download_folder", "list_model_files", "open_uri"]

_KEY_HEX_DIGITS = 32
_LOCAL_ERRNOS = frozenset({errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EROFS})
"""What this machine's disk raises; clients of stores raise none of these numbers."""


def open_uri(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the filesystem of a URI and the path on it.

    Raises:
        ModelLoadError: The protocol is unknown, or its filesystem is not installed.
    """
    try:
        fs, root = file_system_of(uri)
    except (ImportError, ValueError) as error:
        raise ModelLoadError(
            f"cannot open {uri}: {error}; expected a folder or a URI whose protocol fsspec knows "
            "and whose filesystem is installed (s3:// is)"
        ) from error
    # A listing from before another process wrote is no use.
    fs.invalidate_cache()
    return fs, root.rstrip("/")


def list_model_files(fs: fsspec.AbstractFileSystem, root: str) -> dict[str, tuple[int, str]]:
    """Return a folder's model files as path relative to `root` -> (size in bytes, version).

    Versions are ETags where the store has them, else modification times.
    """
    found = {}
    for path, info in fs.find(root, detail=True).items():
        relative = path[len(root) :].lstrip("/")
        if is_model_file(relative):
            found[relative] = (int(info["size"] or 0), file_version(info))
    return found


def download_folder(uri: str, cache_dir: Path | None) -> Path:
    """Return a local copy of the model files below a URI, downloading them unless they are cached.

    Args:
        uri: Folder on any fsspec filesystem.
        cache_dir: Folder of the local copies; None for `~/.cache/twofold/models`.

    Raises:
        ModelLoadError: Nothing is there, it may not be read, or it changed while it was read.
    """
    cache = cache_dir or Path.home() / ".cache" / "twofold" / "models"
    with _explained(uri, cache):
        fs, root = open_uri(uri)
        files = list_model_files(fs, root)
        if not files:
            raise ModelLoadError(
                f"no model files below {uri}: check the bucket and the folder; "
                "`twofold pull --model REF --to URI` puts a model there"
            )
        folder = cache / _key(uri, files)
        if not folder.is_dir():
            _download(fs, root, files, folder)
    return folder


def _download(
    fs: fsspec.AbstractFileSystem, root: str, files: dict[str, tuple[int, str]], folder: Path
) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelLoadError(
            f"cannot make the cache folder {folder.parent} for downloaded models: {error.strerror}"
        ) from error
    _delete_leftovers(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as temporary:
        staged = Path(temporary) / "model"
        for relative, (size, _) in files.items():
            target = staged / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(f"{root}/{relative}", str(target))
            if target.stat().st_size != size:
                raise ModelLoadError(
                    f"{root}/{relative} has {size} bytes, {target.stat().st_size} arrived; "
                    "start again"
                )
        fs.invalidate_cache()
        if list_model_files(fs, root) != files:
            raise ModelLoadError(f"the model at {root} changed during its download; start again")
        try:
            staged.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            # Another process was first with the same files: use its copy.


def _delete_leftovers(cache: Path) -> None:
    for path in cache.glob(f"{'[0-9a-f]' * _KEY_HEX_DIGITS}.*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER_AGE_S:
                shutil.rmtree(path)


def _key(uri: str, files: dict[str, tuple[int, str]]) -> str:
    identity = json.dumps([uri, sorted(files.items())])
    return hashlib.sha256(identity.encode()).hexdigest()[:_KEY_HEX_DIGITS]


@contextmanager
def _explained(uri: str, cache: Path) -> Iterator[None]:
    try:
        yield
    except ModelLoadError:
        raise
    except FileNotFoundError as error:
        raise ModelLoadError(f"nothing at {uri}: check the bucket and the folder") from error
    except Exception as error:
        # Each store's client raises classes of its own; all of them mean that there is no model.
        reason = one_line(error)[:300]
        if isinstance(error, OSError) and error.errno in _LOCAL_ERRNOS:
            raise ModelLoadError(
                f"{uri} cannot be kept in {cache} on {socket.gethostname()} ({reason}): make room "
                "there, or let this user write it"
            ) from error
        raise ModelLoadError(f"{uri} cannot be read ({reason}); {what_to_check(uri)}") from error
