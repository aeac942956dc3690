"""What this machine measures for a plan: a shard written, and the forward on its cores.

The shard goes into a temporary folder through the job's own writer, with random vectors: they do
not compress, as real ones do not. Nothing of the output is touched.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import numpy as np

from encoder.encoder import load_encoder
from encoder.placement import usable_cpus
from encoder.settings import EncoderSettings
from encoder.space import Role
from encoder.tokenizer import Tokenized
from pipelines.actor.forward import Embedded
from pipelines.actor.prepare import PreparedBatch, concatenate
from pipelines.actor.shard_writer import ShardWriter
from pipelines.actor.unit_job import UnitJob
from pipelines.corpus.pin import Pin
from pipelines.corpus.shards import ShardName
from pipelines.read_ahead import StageClock
from pipelines.source.units import WorkUnit

__all__ = ["ForwardProbe", "ShardProbe", "probe_forward", "probe_shard"]

_WINDOW_TOKENS = 30_000
"""Tokens of the texts that are encoded again and again: 4 s of a small model on two cores."""


@dataclass(frozen=True)
class ShardProbe:
    """A shard as it would be written.

    Attributes:
        rows: Its rows.
        size_bytes: Of the data file.
        cpu_s: Processor time of making and writing it.
    """

    rows: int
    size_bytes: int
    cpu_s: float


@dataclass(frozen=True)
class ForwardProbe:
    """The forward on this machine's cores.

    Attributes:
        tokens_per_s: Of all threads together, padding left out.
        threads: Cores that it used.
        seconds: How long it was measured.
        backend: Backend and precision, in words.
    """

    tokens_per_s: float
    threads: int
    seconds: float
    backend: str


def probe_shard(prepared: Sequence[PreparedBatch], unit: WorkUnit, pin: Pin) -> ShardProbe:
    """Write a shard of the sample into a temporary folder.

    Args:
        prepared: Tokenized documents, not empty.
        unit: Any unit of the corpus; its source is looked at as before every commit.
        pin: Space and layout of the output.

    Raises:
        SourceChangedError: The unit's source changed meanwhile.
        StorageError: The temporary folder takes no files.
    """
    batch = _first_rows(prepared, pin.layout.rows_per_shard)
    rows = len(batch.rows)
    vectors = np.random.default_rng(0).normal(size=(rows, pin.space.dimension))
    with TemporaryDirectory(prefix="twofold-plan-") as folder:
        job = UnitJob(folder, pin, EncoderSettings(), None, batch_timeout_s=1.0, run_id="plan")
        writer = ShardWriter(job, pin.provenance)
        start = time.process_time()
        event = writer.commit(
            unit,
            ShardName(unit.key, 0, last=True),
            Embedded(batch, vectors.astype(np.float32), padded_tokens=0, seconds=0.0),
            clock=StageClock(),
        )
        return ShardProbe(rows, event.size_bytes, time.process_time() - start)


def _first_rows(prepared: Sequence[PreparedBatch], most: int) -> PreparedBatch:
    parts: list[PreparedBatch] = []
    rows = 0
    for part in prepared:
        if parts and rows + len(part.rows) > most:
            break
        parts.append(part)
        rows += len(part.rows)
    return concatenate(parts)


def probe_forward(
    settings: EncoderSettings, tokenized: Tokenized, role: Role, *, at_least_s: float
) -> ForwardProbe:
    """Encode texts of the sample on this machine's cores for some seconds.

    What the first pass takes is left out: a backend prepares the shapes that it meets, which a job
    does once for millions of texts.

    Args:
        settings: The model and how to run it; the device is a CPU whatever they say.
        tokenized: Texts of the sample.
        role: Role of all of them.
        at_least_s: Seconds to measure; the last pass is not cut off.

    Raises:
        ModelLoadError: The model does not load here.
        BackendError: The forward failed.
    """
    threads = settings.num_threads or usable_cpus()
    update = {"device": "cpu", "num_threads": threads}
    encoder = load_encoder(settings.model_copy(update=update))
    try:
        window = _window(tokenized)
        encoder.encode_tokenized(window, role)
        passes, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < at_least_s:
            encoder.encode_tokenized(window, role)
            passes += 1
    finally:
        encoder.close()
    return ForwardProbe(
        tokens_per_s=passes * int(window.n_tokens.sum()) / seconds,
        threads=threads,
        seconds=seconds,
        backend=f"{encoder.provenance['backend']} {encoder.provenance['dtype']}",
    )


def _window(tokenized: Tokenized) -> Tokenized:
    """Return texts of the sample, drawn at random, of about `_WINDOW_TOKENS` tokens."""
    order = np.random.default_rng(0).permutation(len(tokenized))
    total = np.cumsum(tokenized.n_tokens[order])
    count = int(np.searchsorted(total, _WINDOW_TOKENS)) + 1
    return tokenized.take([int(i) for i in order[:count]])
