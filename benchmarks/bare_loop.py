"""The least that embedding costs: tokenize and forward the job's texts, and nothing else.

One process with one encoder, as an actor of the job has it: the same settings and threads, the same
texts in the same windows of `--window` documents. No reading, writing or Ray. Prints one JSON
object. Started by `benchmarks.embed`, as a process of its own so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.dataset as ds

from benchmarks.peers.encode_worker import peak_rss_bytes
from encoder.encoder import load_encoder
from encoder.settings import EncoderSettings
from encoder.space import Role

__all__ = ["main", "run_bare_loop"]


def run_bare_loop(
    texts: Sequence[str], settings: EncoderSettings, *, window: int
) -> dict[str, object]:
    """Embed texts as documents and return what it took.

    The rate leaves out the first window, as the job's leaves out what comes before its first
    commit: it pays for the shapes that the backend prepares.

    Args:
        texts: The job's texts in the job's order.
        settings: The job's, threads included.
        window: Documents of a window; the job's `rows_per_shard`.
    """
    started = time.perf_counter()
    encoder = load_encoder(settings)
    load_s = time.perf_counter() - started
    seconds: list[float] = []
    documents: list[int] = []
    tokens: list[int] = []
    padded = 0
    for start in range(0, len(texts), window):
        part = texts[start : start + window]
        started = time.perf_counter()
        encoded = encoder.encode(part, Role.DOCUMENT)
        seconds.append(time.perf_counter() - started)
        documents.append(len(part))
        tokens.append(int(encoded.n_tokens.sum()))
        padded += encoded.padded_tokens
    steady_s = sum(seconds[1:])
    return {
        "documents": sum(documents),
        "tokens": sum(tokens),
        "documents_per_s": round(sum(documents[1:]) / steady_s, 2) if steady_s else None,
        "tokens_per_s": round(sum(tokens[1:]) / steady_s, 1) if steady_s else None,
        "load_s": round(load_s, 2),
        "wall_s": round(load_s + sum(seconds), 2),
        "padding_waste": round(1 - sum(tokens) / padded, 5),
        "peak_rss_bytes": peak_rss_bytes(),
        "backend": encoder.provenance["backend"],
        "dtype": encoder.provenance["dtype"],
    }


def main(argv: Sequence[str]) -> int:
    """Read the job's input files, then run the loop over their texts."""
    parser = argparse.ArgumentParser(description="Tokenize and forward, nothing else")
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--format", required=True)
    parser.add_argument("--window", type=int, required=True)
    parser.add_argument("--settings", required=True, help="EncoderSettings as JSON")
    arguments = parser.parse_args(argv)
    kind = "json" if arguments.format == "jsonl" else arguments.format
    files = [str(file) for file in sorted(arguments.input.iterdir())]
    texts = ds.dataset(files, format=kind).to_table(columns=["text"])["text"].to_pylist()
    settings = EncoderSettings.model_validate_json(arguments.settings)
    sys.stdout.write(json.dumps(run_bare_loop(texts, settings, window=arguments.window)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
