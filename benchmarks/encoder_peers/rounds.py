"""Turns: all systems once on each kind of texts, then again."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.encoder_peers.models import BenchmarkModel
from benchmarks.encoder_peers.systems import CARD, System, offline
from benchmarks.encoder_peers.texts import TextSet
from benchmarks.encoder_peers.worker import Worker
from benchmarks.errors import BenchmarkError
from benchmarks.flops import ModelShape
from benchmarks.lines import Line, Lines
from benchmarks.ordered_process import CannotRunError
from encoder.backends.fidelity import lowest_cosine

__all__ = ["Protocol", "least_cosine", "run_rounds"]

_CARD_SHARE = 4
"""The model card's loop is several times slower than the rest, so it gets a part of the texts."""
_SINGLES = "queries"
_MEAN = "mean"
_QUIET_CORES = 0.15
"""Cores that other processes may use during a turn; above, it is taken again."""
_ATTEMPTS = 3

_Workers = dict[bool, Worker]
"""A system's process for queries (False) and for documents (True)."""


@dataclass(frozen=True)
class Protocol:
    """What is measured.

    Attributes:
        model: The model.
        shape: Its sizes, which its cost follows from.
        environments: Folder of the peers' environments.
        versions: Of what is installed, by environment.
        texts: The kinds of texts.
        rounds: Turns of all systems.
        least_s: How long a turn lasts at least.
        singles: Queries that are encoded one by one; 0 for none.
        threads: Of every system.
        work: For texts, vectors and logs.
    """

    model: BenchmarkModel
    shape: ModelShape
    environments: Path
    versions: Mapping[str, Mapping[str, str]]
    texts: Sequence[TextSet]
    rounds: int
    least_s: float
    singles: int
    threads: int
    work: Path


def run_rounds(protocol: Protocol, systems: Sequence[System], lines: Lines) -> Iterator[int]:
    """Measure and write a line for each cell; yield each round's number before it begins.

    A system that does not load is left out, and a line says why.

    Raises:
        BenchmarkError: One of ours did not load, or a system ended: ours after all others' rounds.
    """
    broken = []
    for texts in protocol.texts:
        _file(protocol, texts).write_text(json.dumps(texts.texts))
    with ExitStack() as running:
        workers: dict[str, _Workers] = {}
        for system in systems:
            try:
                workers[system.name] = _start(protocol, system, running)
            except BenchmarkError as error:
                lines.write("left out", {"system": system.name, "problem": str(error)})
                if system.is_ours and not isinstance(error, CannotRunError):
                    broken.append(f"{system.name}: {error}")
        present = [system for system in systems if system.name in workers]
        # The reference first: the others' vectors are compared with its own.
        present.sort(key=lambda system: system.name != CARD)
        for number in range(1, protocol.rounds + 1):
            yield number
            _run_round(protocol, present, workers, lines, number)
    if broken:
        raise BenchmarkError("; ".join(broken))


def _start(protocol: Protocol, system: System, running: ExitStack) -> _Workers:
    """Start a system: ours once for queries and once for documents, another once for both."""
    sys.stderr.write(f"{protocol.model.name}: loading {system.name}\n")

    def start(*, for_documents: bool) -> Worker:
        worker = Worker(
            system.command(
                protocol.model,
                protocol.environments,
                protocol.threads,
                for_documents=for_documents,
            ),
            offline(protocol.model, protocol.threads),
            protocol.work / f"{system.name}.log",
        )
        running.callback(worker.end)
        return worker

    kinds = {texts.are_documents for texts in protocol.texts}
    if system.is_ours:
        return {kind: start(for_documents=kind) for kind in kinds}
    return dict.fromkeys(kinds, start(for_documents=False))


def _run_round(
    protocol: Protocol,
    systems: Sequence[System],
    workers: Mapping[str, _Workers],
    lines: Lines,
    number: int,
) -> None:
    for texts in protocol.texts:
        for system in systems:
            worker = workers[system.name][texts.are_documents]
            cell = _throughput(protocol, system, worker, texts, is_first=number == 1)
            lines.write("throughput", {"round": number, **_identity(protocol, system), **cell})
    singles = [texts for texts in protocol.texts if texts.kind == _SINGLES]
    if singles and protocol.singles:
        for system in systems:
            worker = workers[system.name][False]
            cell = _latency(protocol, worker, singles[0], is_first=number == 1)
            lines.write("latency", {"round": number, **_identity(protocol, system), **cell})


def _identity(protocol: Protocol, system: System) -> Line:
    return {
        "system": system.name,
        "product": system.product,
        "engine": system.engine,
        "dtype": system.dtype,
        "versions": dict(protocol.versions[system.environment]),
    }


def _throughput(
    protocol: Protocol, system: System, worker: Worker, texts: TextSet, *, is_first: bool
) -> Line:
    count = len(texts.texts)
    if system.name == CARD:
        count = texts.first(sum(texts.lengths) // _CARD_SHARE)
    pooling = _MEAN
    if texts.are_documents and system.pools_both_ways:
        pooling = protocol.model.document_pooling
    vectors = _vectors(protocol, system, texts, pooling)
    if is_first and system.name == CARD and pooling != _MEAN:
        # What libraries are compared with.
        mean = _vectors(protocol, CARD, texts, _MEAN)
        worker.encode(_file(protocol, texts), count, pooling=_MEAN, least_s=0.0, vectors=mean)
    answer = _quiet(
        worker,
        _file(protocol, texts),
        count,
        pooling=pooling,
        least_s=protocol.least_s,
        vectors=vectors if is_first else None,
    )
    seconds = statistics.median(answer["seconds"])
    lengths = texts.lengths[:count]
    cell: Line = {
        "texts": texts.kind,
        "pooling": pooling,
        "source": texts.source,
        "documents": count,
        "tokens": sum(lengths),
        "seconds": round(seconds, 4),
        "passes": len(answer["seconds"]),
        "tokens_per_s": round(sum(lengths) / seconds, 1),
        "documents_per_s": round(count / seconds, 2),
        "gflop_per_s": round(protocol.shape.flops(lengths) / seconds / 1e9, 1),
        "others_cores": answer["others_cores"],
        "peak_rss_bytes": answer["peak_rss_bytes"],
    }
    reference = _vectors(protocol, CARD, texts, pooling)
    if is_first and reference.exists():
        cell["least_cosine"] = least_cosine(np.load(reference), np.load(vectors))
    return cell


def _latency(protocol: Protocol, worker: Worker, texts: TextSet, *, is_first: bool) -> Line:
    count = min(protocol.singles, len(texts.texts))
    # The vectors are not wanted: writing them is what warms up.
    warm = protocol.work / "warm-up.npy" if is_first else None
    answer = _quiet(
        worker,
        _file(protocol, texts),
        count,
        pooling=_MEAN,
        least_s=0.0,
        vectors=warm,
        each=True,
    )
    p50, p90 = np.percentile(answer["seconds"], [50, 90])
    return {
        "texts": texts.kind,
        "source": texts.source,
        "documents": count,
        "p50_ms": round(float(p50) * 1e3, 3),
        "p90_ms": round(float(p90) * 1e3, 3),
        "others_cores": answer["others_cores"],
        "peak_rss_bytes": answer["peak_rss_bytes"],
    }


def _quiet(
    worker: Worker,
    texts: Path,
    count: int,
    *,
    pooling: str,
    least_s: float,
    vectors: Path | None,
    each: bool = False,
) -> dict[str, Any]:
    """Encode, again where other processes worked meanwhile; return the quietest attempt."""
    answers: list[dict[str, Any]] = []
    while len(answers) < _ATTEMPTS:
        answer = worker.encode(
            texts, count, pooling=pooling, least_s=least_s, vectors=vectors, each=each
        )
        answers.append(answer)
        if answers[-1]["others_cores"] <= _QUIET_CORES:
            break
        vectors = None
    return min(answers, key=lambda answer: float(answer["others_cores"]))


def least_cosine(reference: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32]) -> float:
    """Return the least cosine between a reference's vectors (R, D) and the first of these (N, D).

    Raises:
        ValueError: There are fewer than the reference has, or of another dimension.
    """
    if len(vectors) < len(reference) or vectors.shape[1:] != reference.shape[1:]:
        raise ValueError(
            f"expected vectors for a reference of shape {reference.shape}, found {vectors.shape}"
        )
    return round(lowest_cosine(vectors[: len(reference)], reference), 7)


def _file(protocol: Protocol, texts: TextSet) -> Path:
    return protocol.work / f"{texts.kind}.json"


def _vectors(protocol: Protocol, system: System | str, texts: TextSet, pooling: str) -> Path:
    name = system if isinstance(system, str) else system.name
    return protocol.work / f"{name}-{texts.kind}-{pooling}.npy"
