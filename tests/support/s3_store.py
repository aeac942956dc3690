"""The S3 store that tests start; benchmarks start the same one, so it stands there."""

from __future__ import annotations

from benchmarks.s3_store import S3Address, S3Store, find_server

__all__ = ["S3Address", "S3Store", "find_server"]
