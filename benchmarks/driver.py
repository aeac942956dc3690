"""What the driver holds for each unit and shard, and what listing costs; no model, no embedding.

    python -m benchmarks.driver                        memory and a local listing
    python -m benchmarks.driver --ray                  and what Ray keeps for each unit
    python -m benchmarks.driver --list-at s3://b/p     and listings there

Each figure of memory is the growth of a fresh process' resident size while it holds the objects.
One JSON line each.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.lines import Lines
from benchmarks.machine import describe_machine
from pipelines.corpus.index import Index, IndexedShard
from pipelines.corpus.shards import DATA, ShardFooter, ShardName, group_by_unit
from pipelines.source.units import Format, RangeKind, Source, WorkUnit
from pipelines.storage import Storage

__all__ = ["main"]

_MIB = 2**20
_UNITS_OF_A_FILE = 4
_SHARDS_OF_A_UNIT = 8
_THREADS = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.driver", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--units", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--shards", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--list", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--list-at", help="URI below which empty shards are listed too")
    parser.add_argument("--ray", action="store_true", help="give units to Ray Data, 1,000 and more")
    arguments = parser.parse_args(argv)
    lines = Lines("driver", None, {"machine": describe_machine()})
    for count in arguments.units:
        lines.write("plan of units", {"units": count, **_alone(_hold_units, count)})
    for count in arguments.shards:
        with tempfile.TemporaryDirectory(prefix="twofold-index-") as folder:
            file = f"{folder}/index.json"
            written = _alone(_write_index, count, file)
            read = _alone(_read_index, count, file)
            lines.write("index of shards", {"shards": count, **written, **read})
    if arguments.ray:
        for count in (1_000, 4_000):
            given = _alone(_give_to_ray, count)
            lines.write("units given to Ray Data", {"units": count, **given})
    for count in arguments.list:
        with tempfile.TemporaryDirectory(prefix="twofold-list-") as folder:
            lines.write("listing, local disk", {"shards": count, **_listing(folder, count)})
        if arguments.list_at:
            root = f"{arguments.list_at.rstrip('/')}/{uuid.uuid4().hex}"
            lines.write("listing, S3", {"shards": count, **_listing(root, count)})
    return 0


def _alone(measure: Callable[..., dict[str, float]], *arguments: object) -> dict[str, float]:
    """Run a measurement in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _units(count: int) -> list[WorkUnit]:
    size = 64 * _MIB
    units = []
    for file in range(-(-count // _UNITS_OF_A_FILE)):
        source = Source(
            f"s3://lake/documents/year=2026/part-{file:08d}.jsonl",
            f"{file:032x}",
            _UNITS_OF_A_FILE * size,
            Format.JSONL,
            partition=(("year", "2026"),),
            root="s3://lake/documents",
        )
        for part in range(_UNITS_OF_A_FILE):
            start = part * size
            units.append(WorkUnit(source, RangeKind.BYTES, start, start + size, None, None, size))
    return units[:count]


def _hold_units(count: int) -> dict[str, float]:
    """Hold the plan, and the descriptors that go to Ray Data beside it."""
    before = _resident_bytes()
    start = time.perf_counter()
    units = {unit.key: unit for unit in _units(count)}
    plan_s, plan = time.perf_counter() - start, _resident_bytes() - before
    rows = [{"unit": unit.to_json()} for unit in units.values()]
    both = _resident_bytes() - before
    return {
        "plan_bytes_a_unit": round(plan / count, 1),
        "descriptor_bytes_a_unit": round((both - plan) / len(rows), 1),
        "seconds": round(plan_s, 2),
    }


def _footer(unit: WorkUnit, ordinal: int) -> ShardFooter:
    return ShardFooter(
        source=unit.source.uri,
        version=unit.source.version,
        format=unit.source.format.value,
        root=unit.source.root,
        range_kind=unit.kind.value,
        range_start=unit.start,
        range_stop=unit.stop,
        ordinal=ordinal,
        last=False,
        row_start=10_000 * ordinal,
        row_stop=10_000 * (ordinal + 1),
        documents=10_000,
        rows=10_000,
        rejected=0,
        unreadable=0,
        tokens=1_000_000,
        padded_tokens=1_030_000,
        truncated=100,
        run_id=f"{ordinal:032x}",
        provenance={"model": "organisation/a-model", "backend": "torch", "dtype": "bfloat16"},
    )


def _write_index(count: int, file: str) -> dict[str, float]:
    """Write the index of as many shards, as the end of a run does."""
    units = _units(-(-count // _SHARDS_OF_A_UNIT))
    shards = tuple(
        IndexedShard(ShardName(unit.key, ordinal, last=False), 16_000_000, _footer(unit, ordinal))
        for unit in units
        for ordinal in range(_SHARDS_OF_A_UNIT)
    )[:count]
    start = time.perf_counter()
    text = Index("0" * 16, shards, ids_checked=True).to_json()
    seconds = time.perf_counter() - start
    Path(file).write_text(text)
    return {"index_bytes_a_shard": round(len(text) / count, 1), "write_s": round(seconds, 2)}


def _read_index(count: int, file: str) -> dict[str, float]:
    """Hold the index as the next run reads it."""
    before, start = _resident_bytes(), time.perf_counter()
    index = Index.from_json(Path(file).read_bytes(), file)
    seconds, grown = time.perf_counter() - start, _resident_bytes() - before
    if len(index.shards) != count:
        raise RuntimeError(f"expected {count} shards in the index, found {len(index.shards)}")
    return {"memory_bytes_a_shard": round(grown / count, 1), "read_s": round(seconds, 2)}


def _give_to_ray(count: int) -> dict[str, float]:
    """Make the data set of units, one block each, as the job does."""
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
    rows = [{"unit": unit.to_json()} for unit in _units(count)]
    before = _resident_bytes()
    start = time.perf_counter()
    dataset = ray.data.from_items(rows, override_num_blocks=count)
    seconds = time.perf_counter() - start
    grown = _resident_bytes() - before
    del dataset
    ray.shutdown()
    return {
        "memory_bytes_a_unit": round(grown / count, 1),
        "seconds": round(seconds, 2),
    }


def _listing(root: str, count: int) -> dict[str, float]:
    """List a data folder of as many names; their files hold one byte."""
    storage = Storage(root)
    names = [
        ShardName(
            f"{number // _SHARDS_OF_A_UNIT:032x}",
            number % _SHARDS_OF_A_UNIT,
            number % _SHARDS_OF_A_UNIT == _SHARDS_OF_A_UNIT - 1,
        )
        for number in range(count)
    ]
    try:
        _put(storage, names)
        start = time.perf_counter()
        sizes = storage.sizes(DATA)
        list_s = time.perf_counter() - start
        units = group_by_unit(sizes)
        group_s = time.perf_counter() - start - list_s
    finally:
        if storage.is_local:
            shutil.rmtree(storage.path(), ignore_errors=True)
        else:
            storage.fs.rm(storage.path(), recursive=True)
    return {
        "listed": len(sizes),
        "units": len(units),
        "list_s": round(list_s, 3),
        "group_s": round(group_s, 3),
    }


def _put(storage: Storage, names: Sequence[ShardName]) -> None:
    if storage.is_local:
        folder = Path(storage.path(DATA))
        folder.mkdir(parents=True)
        for name in names:
            (folder / str(name)).write_bytes(b"x")
        return
    with ThreadPoolExecutor(_THREADS) as threads:
        put = storage.fs.pipe_file
        list(threads.map(lambda name: put(storage.path(f"{DATA}/{name}"), b"x"), names))


if __name__ == "__main__":
    sys.exit(main())
