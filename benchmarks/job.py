"""The job against what a user would write instead: Parquet in, Parquet out.

    make bench                           quick: 1 round of 2,000 descriptions, about 4 minutes
    python -m benchmarks.job --full      3 rounds of 8,000
    python -m benchmarks.job --place s3   Parquet in S3 to Parquet in S3

Systems: `twofold embed`; a Ray Data script with Sentence Transformers; Sentence Transformers' own
pool of processes. Each is a process of its own from start to end, in turns, once with a few
documents and once with all: the first is the price of starting, the difference the rate that a
large corpus gets. All compute on the CPU, and their vectors must agree. Lines: see README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import descriptions, sample, write_input
from benchmarks.encoder_peers.models import (
    MODELS,
    BenchmarkModel,
    pooled_for_documents,
    prepare_model,
)
from benchmarks.encoder_peers.rounds import least_cosine
from benchmarks.encoder_peers.systems import offline
from benchmarks.errors import BenchmarkError
from benchmarks.flops import ModelShape
from benchmarks.job_peers.places import Place, local_place, s3_place
from benchmarks.job_peers.systems import OURS, SYSTEMS, JobSystem
from benchmarks.lines import Line, Lines
from benchmarks.machine import describe_machine, use_cores
from benchmarks.paths import DATA, REPOSITORY
from benchmarks.process_tree import TOKEN, MemoryWatch
from benchmarks.versions import versions_in
from benchmarks.whole_job import run
from benchmarks.work_folder import measure_in_folder
from encoder.placement import usable_cpus
from encoder.tokenizer import Tokenizer

__all__ = ["main"]

_QUICK = {"rounds": 1, "docs": 2_000}
_FULL = {"rounds": 3, "docs": 8_000}
_FEW = 50
_ROWS_PER_FILE = 500
_LEAST_COSINE = 0.99
_PLACES = {"local": local_place, "s3": s3_place}


@dataclass(frozen=True)
class _Setting:
    model: BenchmarkModel
    environments: Path
    threads: int
    work: Path
    place: Place
    tokens: Mapping[int, int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 where a job failed."""
    arguments = _parser().parse_args(argv)
    for name, value in (_FULL if arguments.full else _QUICK).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return measure_in_folder(lambda work: _measure(arguments, work))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.job",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [system.name for system in SYSTEMS]
    add = parser.add_argument
    add("--full", action="store_true", help="the whole protocol")
    add("--rounds", type=int, help="turns of all systems")
    add("--docs", type=int, help="documents of the larger run")
    add("--model", choices=MODELS, default="minilm")
    add("--only", nargs="+", choices=names, default=names, help="which systems")
    add("--place", choices=list(_PLACES), default="local", help="where input and output lie")
    add("--threads", type=int, default=usable_cpus())
    add("--lines", type=Path, help="append the lines to this file; unset: stdout")
    add("--data", type=Path, default=DATA, help="the data sets")
    add("--bench", type=Path, default=REPOSITORY / ".bench", help="models and environments")
    return parser


def _measure(arguments: argparse.Namespace, work: Path) -> None:
    if arguments.docs <= _FEW:
        raise BenchmarkError(f"expected --docs above {_FEW}, found {arguments.docs}")
    use_cores(arguments.threads)
    environments = arguments.bench / "peers"
    model = pooled_for_documents(
        prepare_model(arguments.model, arguments.bench, environments / "infinity-onnx/bin/python"),
        work / "model",
    )
    source, found = descriptions(arguments.data, arguments.docs)
    texts = sample(found, arguments.docs)
    tokenizer = Tokenizer(model.ours / "tokenizer.json", model.max_tokens)
    lengths = tokenizer.tokenize(texts).n_tokens
    shape = ModelShape.of(json.loads((model.ours / "config.json").read_text()))
    context: Line = {
        "model_name": model.name,
        "model": vars(shape),
        "source": source,
        "place": arguments.place,
        "threads": arguments.threads,
        "machine": describe_machine(),
    }
    lines = Lines("job", arguments.lines, context)
    with _PLACES[arguments.place](work) as place:
        sizes = {len(part): int(lengths[: len(part)].sum()) for part in (texts[:_FEW], texts)}
        setting = _Setting(model, environments, arguments.threads, work, place, sizes)
        sources = {}
        for size in sizes:
            files = work / f"texts-{size}"
            write_input(texts[:size], files, "parquet", rows_per_file=_ROWS_PER_FILE)
            sources[size] = place.put(files, f"texts-{size}")
        systems = _present(arguments, environments, lines)
        for number in range(1, arguments.rounds + 1):
            _run_round(setting, systems, sources, lines, number)


def _present(
    arguments: argparse.Namespace, environments: Path, lines: Lines
) -> list[tuple[JobSystem, dict[str, str]]]:
    """Return the systems that can run, with their versions, ours first."""
    found = []
    for system in SYSTEMS:
        if system.name not in arguments.only:
            continue
        python = system.python(environments)
        if not python.exists():
            lines.write("left out", {"system": system.name, "problem": "make bench-peers"})
        else:
            found.append((system, versions_in(str(python))))
    return found


def _run_round(
    setting: _Setting,
    systems: Sequence[tuple[JobSystem, dict[str, str]]],
    sources: Mapping[int, str],
    lines: Lines,
    number: int,
) -> None:
    ours: dict[str, Any] = {}
    for system, versions in systems:
        if number == 1:
            # Not counted: a first start reads libraries from disk and compiles them. Ray Data's
            # took 56 s with 50 documents, and 59 s with 1,000 right after it.
            few = min(sources)
            _run(setting, system, sources[few], few)
        runs = {}
        for size, source in sources.items():
            result, vectors = _run(setting, system, source, size)
            runs[size] = result["wall_s"]
            if system.name == OURS:
                ours = vectors
            elif ours.keys() >= vectors.keys():
                result["least_cosine_to_ours"] = _least_cosine(system, ours, vectors)
            identity = {"round": number, "system": system.name, "versions": versions}
            lines.write("run", {**identity, **result})
        few, many = sorted(runs)
        rate = _marginal(setting.tokens[few], runs[few], setting.tokens[many], runs[many])
        identity = {"round": number, "system": system.name, "documents": many}
        lines.write("rate", {**identity, "marginal_tokens_per_s": rate})


def _marginal(few_tokens: int, few_s: float, many_tokens: int, many_s: float) -> float:
    """Return the tokens/s of what the larger run had more.

    Raises:
        BenchmarkError: It took no longer: the corpus is too small to tell.
    """
    if many_s <= few_s:
        raise BenchmarkError(
            f"expected {many_tokens:,} tokens to take longer than {few_tokens:,}, found "
            f"{many_s:.1f} and {few_s:.1f} s; raise --docs, or leave the machine alone"
        )
    return round((many_tokens - few_tokens) / (many_s - few_s), 1)


def _run(
    setting: _Setting, system: JobSystem, source: str, size: int
) -> tuple[Line, dict[str, Any]]:
    """Run one job; return its line and its vectors by id."""
    sys.stderr.write(f"{setting.place.name}: {system.name}, {size} documents\n")
    token = uuid.uuid4().hex
    output = f"{setting.place.root}/{system.name}-{token}"
    command = system.command(setting.model, source, output, setting.environments, setting.threads)
    environment = {**offline(setting.model, setting.threads), **setting.place.environment}
    # Each actor's and pool's threads are the job's own affair.
    environment.pop("OMP_NUM_THREADS")
    started = time.perf_counter()
    with MemoryWatch(token) as memory:
        run(
            command,
            setting.work / f"{system.name}-{token}.log",
            {**environment, "RAY_USAGE_STATS_ENABLED": "0", TOKEN: token},
            folder=REPOSITORY,
        )
    wall_s = time.perf_counter() - started
    vectors = setting.place.vectors(output)
    if len(vectors) != size:
        raise BenchmarkError(
            f"expected {size} documents from {system.name}, found {len(vectors)} in {output}"
        )
    tokens = setting.tokens[size]
    result: Line = {
        "documents": size,
        "tokens": tokens,
        "wall_s": round(wall_s, 2),
        "wall_tokens_per_s": round(tokens / wall_s, 1),
        "tree_peak_bytes": memory.tree_peak_bytes,
    }
    if not system.script:
        account = json.loads(setting.place.read(output, "_report.json"))
        result["seconds_by_stage"] = account["seconds_by_stage"]
        result["first_commit_s"] = round(account["first_commit_at"] - account["started_at"], 2)
    return result, vectors


def _least_cosine(system: JobSystem, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """Return the least cosine of a system's vectors to ours.

    Raises:
        BenchmarkError: They are others, so that times say nothing.
    """
    names = sorted(theirs)
    reference = np.asarray([theirs[name] for name in names], dtype=np.float32)
    found = least_cosine(reference, np.asarray([ours[name] for name in names], dtype=np.float32))
    if found < _LEAST_COSINE:
        raise BenchmarkError(
            f"expected the same vectors from {system.name} (cosine {_LEAST_COSINE} and more), "
            f"found {found}"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
