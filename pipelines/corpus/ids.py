"""Whether (id, chunk_index) is unique over a corpus that need not fit into memory.

Ids are hashed to 64 bits and spread by hash over temporary files, each small enough to be sorted in
memory; only hashes that occur twice are looked up again, so that a collision is never reported.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.columns import CHUNK_INDEX
from pipelines.corpus.shard_file import damage_explained
from pipelines.corpus.shards import DATA, ShardName
from pipelines.source.arrow_values import runs_code
from pipelines.storage import Storage

__all__ = ["DuplicateId", "find_duplicate_ids"]

_READ_AHEAD_BYTES = 64 * 1024
"""The id column is a hundredth of a shard: of 15.7 MB 0.15 MB were read, and 15.8 without this."""
_READ_THREADS = 8
_HASHES_PER_PART = 4_000_000
"""32 MB to sort at a time."""
_HASHES_PER_WRITE = 65_536
"""0.5 MB a part: 125 MB for a billion rows."""
_MOST_SUSPECTS = 10_000
"""Hashes that are looked up again: where a whole corpus is there twice, a few show it. So many
collisions of 64 bits, behind which a real duplicate could hide, take 600 billion rows."""

_SHOWN_CHARACTERS = 200

DuplicateId = tuple[str, int, list[str]]
"""(id up to its 200th character, chunk_index, names of the shards in which it occurs)."""


def find_duplicate_ids(
    storage: Storage, names: Sequence[ShardName], *, id_column: str, rows: int, most: int = 10
) -> list[DuplicateId]:
    """Find ids that occur more than once.

    Args:
        storage: The output folder.
        names: The shards to look at.
        id_column: Name of the id column.
        rows: Rows of all of them, to choose the number of temporary files.
        most: Duplicates to return at the most.

    Returns:
        Some duplicates, in the order of their shards; empty when ids are unique.

    Raises:
        CorpusError: A shard cannot be read.
        FileNotFoundError: A shard is not there.
    """
    parts = max(1, -(-rows // _HASHES_PER_PART))
    suspects: set[int] = set()
    with tempfile.TemporaryDirectory(prefix="twofold-ids-") as folder:
        paths = [Path(folder) / f"{part}.u64" for part in range(parts)]
        _spread(storage, names, id_column, paths)
        for path in paths:
            if path.exists():
                hashes = np.sort(np.fromfile(path, np.uint64))
                twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
                suspects.update(twice[: _MOST_SUSPECTS - len(suspects)].tolist())
    return _look_up(storage, names, id_column, suspects, most) if suspects else []


def _spread(
    storage: Storage, names: Sequence[ShardName], id_column: str, paths: Sequence[Path]
) -> None:
    """Write the hashes of all ids to files, each to the one that its value says."""
    parts = len(paths)
    held: list[list[np.ndarray]] = [[] for _ in paths]
    counts = np.zeros(parts, np.int64)
    for hashes in _hashes_of_all(storage, names, id_column):
        number = hashes % np.uint64(parts)
        order = np.argsort(number, kind="stable")
        more = np.bincount(number.astype(np.int64), minlength=parts)
        for pieces, piece in zip(held, np.split(hashes[order], np.cumsum(more)[:-1]), strict=True):
            pieces.append(piece)
        counts += more
        for part in np.flatnonzero(counts >= _HASHES_PER_WRITE).tolist():
            _append(paths[part], held[part])
            counts[part] = 0
    for path, pieces in zip(paths, held, strict=True):
        _append(path, pieces)


def _append(path: Path, pieces: list[np.ndarray]) -> None:
    with path.open("ab") as file:
        np.concatenate([np.zeros(0, np.uint64), *pieces]).tofile(file)
    pieces.clear()


def _hashes_of_all(
    storage: Storage, names: Sequence[ShardName], id_column: str
) -> Iterator[np.ndarray]:
    """Yield the hashes of each shard's ids; a few shards are read ahead, not all of them."""
    ahead: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        for name in names:
            ahead.append(pool.submit(_hashes, storage, name, id_column))
            if len(ahead) > 2 * _READ_THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _hashes(storage: Storage, name: ShardName, id_column: str) -> np.ndarray:
    values = [_hash(key) for key in _keys(storage, name, id_column)]
    return np.array(values, np.uint64)


def _keys(storage: Storage, name: ShardName, id_column: str) -> Iterator[tuple[str, int]]:
    relative = f"{DATA}/{name}"
    with (
        damage_explained(storage.below(relative)),
        storage.open(relative, read_ahead_bytes=_READ_AHEAD_BYTES) as file,
    ):
        table: pa.Table = pq.read_table(file, columns=[id_column, CHUNK_INDEX])
        if runs_code(table.field(id_column).type):
            raise ValueError(
                f"expected plain values in column {id_column!r}, found "
                f"{table.field(id_column).type}, which runs code to read a value"
            )
        ids, chunks = (table[name].to_pylist() for name in (id_column, CHUNK_INDEX))
    for identity, chunk in zip(ids, chunks, strict=True):
        yield str(identity), chunk


def _hash(key: tuple[str, int]) -> int:
    digest = hashlib.blake2b(f"{key[1]}:{key[0]}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _look_up(
    storage: Storage, names: Sequence[ShardName], id_column: str, suspects: set[int], most: int
) -> list[DuplicateId]:
    counts: Counter[tuple[str, int]] = Counter()
    where: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in names:
        for key in _keys(storage, name, id_column):
            if _hash(key) in suspects:
                counts[key] += 1
                if str(name) not in where[key][-1:]:
                    where[key].append(str(name))
    doubled = [key for key, count in counts.items() if count > 1]
    return [(key[0][:_SHOWN_CHARACTERS], key[1], where[key]) for key in doubled[:most]]
