"""Where input and output lie: a local disk, or an S3 store that is started for the benchmark."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.dataset as ds

from benchmarks.errors import BenchmarkError

__all__ = ["Place", "local_place", "s3_place"]


@dataclass(frozen=True)
class Place:
    """A folder to work in.

    Attributes:
        name: "local" or "s3".
        root: Path or URI; what is below it is deleted with it.
        environment: Variables that a process needs to reach it.
    """

    name: str
    root: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def put(self, folder: Path, name: str) -> str:
        """Copy a local folder's files below the root; return where they are."""
        target = f"{self.root}/{name}"
        if self.name == "local":
            return str(folder)
        store = self._store()
        for file in sorted(folder.iterdir()):
            store.put_file(str(file), f"{target}/{file.name}")
        return target

    def vectors(self, output: str) -> dict[str, Any]:
        """Return the vectors of an output by id, each a list of floats.

        Raises:
            BenchmarkError: There are none.
        """
        store = self._store()
        below = output.removeprefix("s3://")
        files = [
            file
            for file in store.find(below)
            if file.endswith(".parquet")
            and not Path(file).relative_to(below).parts[0].startswith("_")
        ]
        if not files:
            raise BenchmarkError(f"expected Parquet files in {output}, found none")
        table = ds.dataset(files, filesystem=store).to_table(columns=["id", "embedding"])
        return dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))

    def read(self, output: str, name: str) -> bytes:
        """Return a file of an output.

        Raises:
            FileNotFoundError: There is none.
        """
        content: bytes = self._store().cat_file(f"{output}/{name}")
        return content

    def _store(self) -> Any:  # noqa: ANN401 - fsspec has no types
        if self.name == "local":
            return fsspec.filesystem("file")
        return fsspec.filesystem(
            "s3",
            key=self.environment["AWS_ACCESS_KEY_ID"],
            secret=self.environment["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            skip_instance_cache=True,
        )


@contextmanager
def local_place(work: Path) -> Iterator[Place]:
    """Give a folder on this disk."""
    folder = work / "local"
    folder.mkdir()
    yield Place("local", str(folder))


@contextmanager
def s3_place(work: Path) -> Iterator[Place]:
    """Start SeaweedFS and give a prefix in it.

    Raises:
        BenchmarkError: SeaweedFS is not installed.
    """
    # Imported here: it needs boto3, which a local place does without.
    from benchmarks.s3_store import S3Address, S3Store, find_server

    binary = find_server()
    if binary is None:
        raise BenchmarkError(
            "expected SeaweedFS's weed beside this Python, found none: make install"
        )
    store = S3Store(binary, work / "store", S3Address.choose())
    try:
        store.start()
        environment = {**store.address.environment(), "NO_PROXY": _no_proxy()}
        yield Place("s3", store.fresh_prefix(), environment)
    finally:
        store.stop()


def _no_proxy() -> str:
    return ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost")))
