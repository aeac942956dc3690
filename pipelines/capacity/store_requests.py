"""Requests of a whole run to an object store, by method: arithmetic over files, units and shards.

The factors are what the code does, counted at a proxy by tests/integration/test_store_requests.py,
which fails when they change. Retries and the rejects of bad rows come on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.source.readers.files import STREAM_BLOCK_BYTES

__all__ = ["StoreRequests", "store_requests"]

_NAMES_OF_A_LIST = 1_000


@dataclass(frozen=True)
class StoreRequests:
    """Requests by method; stores charge a LIST like a PUT, and a HEAD like a GET.

    Attributes:
        put: One for each shard and a handful for a run.
        get: Reads of sources, footers and ids.
        head: Looks at versions and sizes.
        listing: LIST requests (GET on the bucket).
    """

    put: int
    get: int
    head: int
    listing: int


def store_requests(
    *, files: int, parquet_files: int, input_bytes: float, units: int, shards: int
) -> StoreRequests:
    """Return the requests of a run that embeds everything, input and output on the same store.

    Args:
        files: Input files.
        parquet_files: Those of them whose footers are read to plan units.
        input_bytes: Their stored bytes.
        units: Work units.
        shards: Output files.
    """
    listed_files = max(1, math.ceil(files / _NAMES_OF_A_LIST))
    listed_shards = max(1, math.ceil(shards / _NAMES_OF_A_LIST))
    blocks = max(units, math.ceil(input_bytes / STREAM_BLOCK_BYTES))
    return StoreRequests(
        # _space.json, _probe_vectors.json, two of the store's probe, _report.json, and _index.json
        # before ids are checked and after.
        put=shards + 7,
        # Each shard's footer and ids are read once at the end; the probe, the pin and the index are
        # read back. _probe_vectors.json is looked for before it is there, the index twice.
        get=parquet_files + blocks + 2 * shards + 6,
        # A unit: its version, and opening it. A shard: the version again, footer and ids opened.
        head=parquet_files + 2 * units + 3 * shards + 3,
        # A unit lists its shards at its beginning and end, and before each shard's forward. The
        # driver lists all at the plan, and thrice for data and once for rejects at the end.
        listing=listed_files + 2 * units + shards + 4 * listed_shards + 3,
    )
