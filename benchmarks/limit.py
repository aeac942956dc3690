"""The limit: how fast this machine multiplies matrices of a model's shapes, by precision.

    python -m benchmarks.limit --model .bench/models/ours

Prints a line for each precision and batch, and one with the best of each: what an encoder's
throughput is set against. `benchmarks.encode` runs it in every round, since machines drift.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.flops import ModelShape
from benchmarks.lines import Lines
from benchmarks.machine import describe_machine
from encoder.placement import usable_cpus

__all__ = ["main"]

_BATCHES = (256, 512, 1_024, 2_048)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 0, or 1 where the model's shape cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="folder with config.json")
    add("--threads", type=int, default=usable_cpus())
    add("--seconds", type=float, default=0.5, help="for each engine, precision and batch")
    add("--batches", type=int, nargs="+", default=list(_BATCHES), help="tokens of a batch")
    add("--round", type=int, default=1, help="what the lines say of it")
    add("--lines", type=Path, help="append the lines to this file; unset: stdout")
    arguments = parser.parse_args(argv)
    try:
        shape = ModelShape.of(json.loads((arguments.model / "config.json").read_text()))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"benchmark: error: {error}\n")
        return 1
    _measure(shape, arguments)
    return 0


def _measure(shape: ModelShape, arguments: argparse.Namespace) -> None:
    # Imported here: a shape that cannot be read is told without waiting for torch.
    from benchmarks.gemm import DTYPES, gemm_rates

    context = {
        "model": vars(shape),
        "linear_mflop_per_token": round(shape.linear_flops_per_token / 1e6, 2),
        "threads": arguments.threads,
        "machine": describe_machine(),
    }
    lines = Lines("limit", arguments.lines, context)
    best: dict[str, float] = {}
    for dtype in DTYPES:
        for tokens in arguments.batches:
            rates = gemm_rates(
                shape.products,
                tokens=tokens,
                threads=arguments.threads,
                seconds=arguments.seconds,
                dtype=dtype,
            )
            for engine, rate in rates.items():
                result = {"round": arguments.round, "dtype": dtype, "batch_tokens": tokens}
                lines.write("gemm", {**result, "engine": engine, "gflop_per_s": rate})
                best[dtype] = max(best.get(dtype, 0.0), rate)
    lines.write("best", {"round": arguments.round, "gflop_per_s": best})


if __name__ == "__main__":
    sys.exit(main())
