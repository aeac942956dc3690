"""One GPU: what it multiplies, what our encoder and sentence-transformers make of it.

    python -m benchmarks.gpu --lines .bench/lines/gpu.jsonl

NoInstruct's architecture, documents of Debian's descriptions (generated ones where absent), one
process. Systems take turns within a round; round 0 is each system's first pass, whose batches have
shapes that nothing has seen yet, as all of a corpus' have. sentence-transformers runs where it is
installed. Ends with 1 where there is no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.corpus import generated_texts, read_folder, sample, write_input
from benchmarks.flops import ModelShape
from benchmarks.lines import Lines
from benchmarks.machine import describe_machine
from benchmarks.models import save_random_noinstruct
from benchmarks.paths import DEBIAN, REPOSITORY
from benchmarks.whole_job import run_whole_job
from encoder.encoder import Encoder, load_encoder
from encoder.placement import usable_cpus
from encoder.settings import BackendName, DtypeName, EncoderSettings
from encoder.space import Role

__all__ = ["main"]

_SHAPE = ModelShape(layers=12, hidden=384, intermediate=1536, heads=12)
_GEMM_TOKENS = 65_536
_GEMM_STEPS = 20
_PEER_SHARE = 4
"""sentence-transformers gets a quarter of the texts: it is several times slower."""
_COMPARED = 200
"""Texts whose vectors are compared with float32 on the CPU."""
_CROWD = 32
_WINDOW = 10_000
"""Documents of a shard of the job, as it writes them unless told otherwise."""
_UNIT_WINDOWS = 2
_QUESTION = "how do I reset the password of my account please"

Encode = Callable[[list[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class _System:
    """What encodes documents.

    Attributes:
        name: Product, precision and what was chosen.
        encode: Texts in, unit vectors (N, D) out.
        texts: What it gets.
        tokens: Of these, special ones included.
    """

    name: str
    encode: Encode
    texts: list[str]
    tokens: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 0, or 1 where there is no GPU."""
    arguments = _parser().parse_args(argv)
    if not torch.cuda.is_available():
        sys.stderr.write("benchmark: error: expected a CUDA device, found none\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        _measure(arguments, save_random_noinstruct(Path(folder) / "model"), Path(folder))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--documents", type=int, default=20_000, help="of a turn")
    add("--rounds", type=int, default=5, help="turns of all systems after their first pass")
    add("--job-documents", type=int, default=240_000, help="of the whole job; 0 leaves it out")
    add(
        "--data",
        type=Path,
        default=DEBIAN if DEBIAN.is_dir() else None,
        help="as benchmarks.embed",
    )
    add("--lines", type=Path, help="append the lines to this file; unset: stdout")
    return parser


def _measure(arguments: argparse.Namespace, model: Path, work: Path) -> None:
    texts = _texts(arguments)
    encoder = load_encoder(EncoderSettings(model=str(model)))
    lengths = encoder.tokenize(texts, Role.DOCUMENT).n_tokens
    properties = torch.cuda.get_device_properties(0)
    context = {
        "model": vars(_SHAPE),
        "gpu": {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)},
        "max_batch_tokens": encoder.max_batch_tokens,
        "machine": describe_machine(),
    }
    lines = Lines("gpu", arguments.lines, context)
    part = len(texts) // _PEER_SHARE
    systems = [
        *_ours(encoder, texts, int(lengths.sum())),
        *_sentence_transformers(lines, model, texts[:part], int(lengths[:part].sum())),
    ]
    expected = _in_float32(model, texts[:_COMPARED])
    for number in range(arguments.rounds + 1):
        lines.write("limit", {"round": number, "tflop_per_s": _gemm_tflops()})
        _write_tokenizing(lines, number, encoder, texts)
        for system in systems:
            seconds, vectors = _timed(system)
            compared = min(len(vectors), len(expected))
            cosines = (vectors[:compared] * expected[:compared]).sum(axis=1)
            flops = _SHAPE.flops(lengths[: len(system.texts)].tolist())
            line = {
                "round": number,
                "system": system.name,
                "documents": len(system.texts),
                "tokens": system.tokens,
                "seconds": round(seconds, 3),
                "tokens_per_s": round(system.tokens / seconds, 1),
                "tflop_per_s": round(flops / seconds / 1e12, 1),
                "least_cosine": round(float(cosines.min()), 6),
            }
            lines.write("throughput", line)
    _write_latencies(lines, encoder)
    encoder.close()
    if arguments.job_documents:
        _write_job(lines, model, texts, arguments.job_documents, work)


def _texts(arguments: argparse.Namespace) -> list[str]:
    if arguments.data is None:
        return generated_texts(arguments.documents)
    return sample(read_folder(arguments.data), arguments.documents)


def _ours(encoder: Encoder, texts: list[str], tokens: int) -> list[_System]:
    tokenized = encoder.tokenize(texts, Role.DOCUMENT)
    name = f"twofold {encoder.provenance['dtype']}"
    return [
        _System(
            f"{name}, tokenized before",
            lambda _: encoder.encode_tokenized(tokenized, Role.DOCUMENT).vectors,
            texts,
            tokens,
        ),
        _System(name, encoder.encode_documents, texts, tokens),
    ]


def _sentence_transformers(
    lines: Lines, model: Path, texts: list[str], tokens: int
) -> list[_System]:
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ImportError as error:
        lines.write("left out", {"system": "sentence-transformers", "problem": str(error)})
        return []
    systems = []
    for dtype, batch_size in ((torch.float32, 32), (torch.bfloat16, 32), (torch.bfloat16, 256)):
        modules = [Transformer(str(model), max_seq_length=512), Pooling(_SHAPE.hidden, "cls")]
        loaded = SentenceTransformer(modules=modules, device="cuda").to(dtype)

        def encode(
            texts: list[str], loaded: SentenceTransformer = loaded, batch_size: int = batch_size
        ) -> npt.NDArray[np.float32]:
            found = loaded.encode(
                texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
            )
            vectors: npt.NDArray[np.float32] = found.astype(np.float32)
            return vectors

        name = f"sentence-transformers {str(dtype).removeprefix('torch.')}, batches of {batch_size}"
        systems.append(_System(name, encode, texts, tokens))
    return systems


def _in_float32(model: Path, texts: list[str]) -> npt.NDArray[np.float32]:
    exact = load_encoder(
        EncoderSettings(
            model=str(model), backend=BackendName.TORCH, dtype=DtypeName.FLOAT32, device="cpu"
        )
    )
    try:
        return exact.encode_documents(texts)
    finally:
        exact.close()


def _timed(system: _System) -> tuple[float, npt.NDArray[np.float32]]:
    torch.cuda.synchronize()
    started = time.perf_counter()
    vectors = system.encode(system.texts)
    return time.perf_counter() - started, vectors


def _gemm_tflops() -> float:
    """Return what the products of a layer run at in bfloat16, on random numbers."""
    hidden = torch.randn(_GEMM_TOKENS, _SHAPE.hidden, device="cuda", dtype=torch.bfloat16)
    weights = [
        torch.randn(outer, inner, device="cuda", dtype=torch.bfloat16) / inner**0.5
        for inner, outer in _SHAPE.products
    ]
    flops = 2 * _GEMM_TOKENS * sum(inner * outer for inner, outer in _SHAPE.products)
    seconds = []
    for _ in range(_GEMM_STEPS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        products = hidden
        for weight in weights:
            products = torch.nn.functional.linear(products, weight)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return round(flops / statistics.median(seconds) / 1e12, 1)


def _write_tokenizing(lines: Lines, number: int, encoder: Encoder, texts: list[str]) -> None:
    started = time.perf_counter()
    tokens = encoder.tokenize(texts, Role.DOCUMENT).total_tokens
    seconds = time.perf_counter() - started
    lines.write("tokenizing", {"round": number, "tokens_per_s": round(tokens / seconds, 1)})


def _write_latencies(lines: Lines, encoder: Encoder) -> None:
    """Measure queries, alone and some together, before and after small forwards are recorded."""
    for recorded in (False, True):
        if recorded:
            encoder.expect_short_texts()
        for count in (1, _CROWD):
            questions = [f"{_QUESTION} {'again ' * (number % 5)}" for number in range(count)]
            seconds = []
            for _ in range(100):
                started = time.perf_counter()
                encoder.encode_queries(questions)
                seconds.append(time.perf_counter() - started)
            lines.write(
                "latency",
                {
                    "system": "twofold, recorded" if recorded else "twofold",
                    "queries": count,
                    "p50_ms": round(statistics.median(seconds[20:]) * 1e3, 2),
                },
            )


def _write_job(lines: Lines, model: Path, texts: list[str], documents: int, work: Path) -> None:
    """Run the job over the texts again and again: a corpus that lasts longer than its start."""
    repeated = [texts[number % len(texts)] for number in range(documents)]
    write_input(repeated, work / "input", "parquet", rows_per_file=_UNIT_WINDOWS * _WINDOW)
    result = run_whole_job(
        work / "input",
        work / "vectors",
        EncoderSettings(model=str(model)),
        threads=usable_cpus(),
        window=_WINDOW,
        folder=REPOSITORY,
    )
    lines.write("job", result)


if __name__ == "__main__":
    sys.exit(main())
