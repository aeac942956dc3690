"""Opens what a peer's script is given: a local folder or an s3:// URI."""

from __future__ import annotations

import os

import pyarrow.fs


def filesystem(uri: str) -> tuple[str, pyarrow.fs.FileSystem]:
    """Return a folder's path and its filesystem; the store's address is in the environment."""
    if not uri.startswith("s3://"):
        return uri, pyarrow.fs.LocalFileSystem()
    scheme, _, host = os.environ["AWS_ENDPOINT_URL"].partition("://")
    store = pyarrow.fs.S3FileSystem(
        endpoint_override=host, scheme=scheme, region=os.environ["AWS_REGION"]
    )
    return uri.removeprefix("s3://"), store
