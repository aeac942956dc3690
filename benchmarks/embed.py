"""The job against the bare loop: what reading, writing, committing and Ray cost.

    make bench-loop                       quick: 2 pairs of 5,000 documents
    python -m benchmarks.embed --full     5 pairs of 20,000, then 60,000 for the memory

Bare loop and job take turns on the same texts with the same encoder settings, threads and windows;
each run is a process of its own. One JSON line for each run, one for the summary: see README.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import (
    InputFormat,
    first_tokens,
    generated_texts,
    read_folder,
    sample,
    write_input,
)
from benchmarks.lines import Line, Lines
from benchmarks.machine import describe_machine
from benchmarks.models import save_random_noinstruct
from benchmarks.paths import DEBIAN, REPOSITORY
from benchmarks.summary import check_comparable, summarize
from benchmarks.whole_job import run, run_whole_job
from benchmarks.work_folder import measure_in_folder
from encoder.model.description import describe_model
from encoder.placement import usable_cpus
from encoder.settings import BackendName, DtypeName, EncoderSettings
from encoder.tokenizer import Tokenizer

__all__ = ["main"]

_SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
)
_UNIT_WINDOWS = 2
"""Windows of an input file: a unit of more than one shard, and many units to overlap."""


@dataclass(frozen=True)
class Protocol:
    """What is measured.

    Attributes:
        runs: Pairs of bare loop and job.
        docs: Documents of each run.
        memory_docs: Documents of the run that shows whether memory grows; 0 leaves it out.
        limit_tokens: Cut the documents of a run where they make so many tokens.
        window: Documents of a window of the loop, and of a shard of the job.
        kind: Format of the job's input files.
        threads: Threads of the loop, CPUs of the job's one actor.
        encoder: The model and how to run it.
    """

    runs: int
    docs: int
    memory_docs: int
    limit_tokens: int | None
    window: int
    kind: InputFormat
    threads: int
    encoder: EncoderSettings


_QUICK = {"runs": 2, "docs": 5_000, "memory_docs": 0}
_FULL = {"runs": 5, "docs": 20_000, "memory_docs": 60_000}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 where a run failed."""
    arguments = _parser().parse_args(argv)
    return measure_in_folder(lambda work: _run(arguments, work), arguments.work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add(
        "--full",
        action="store_true",
        help="the whole protocol: 5 x 20,000 documents twice, then 60,000",
    )
    add("--runs", type=int, help="pairs of bare loop and job")
    add("--docs", type=int, help="documents of each run")
    add("--memory-docs", type=int, help="documents of the memory run; 0: none")
    add("--limit-tokens", type=int, help="end a run's documents after so many tokens")
    add("--window", type=int, default=1_000, help="documents of a window and of a shard")
    add("--format", choices=["parquet", "jsonl"], default="parquet", help="of the job's input")
    add("--threads", type=int, default=min(8, usable_cpus()), help="of the encoder")
    add("--model", metavar="REF", help="unset: NoInstruct's architecture with random weights")
    add("--backend", choices=[name.value for name in BackendName], default="auto")
    add("--dtype", choices=[name.value for name in DtypeName], default="auto")
    add(
        "--data",
        type=Path,
        default=DEBIAN if DEBIAN.is_dir() else None,
        help="folder of *.jsonl(.gz) with a column text; unset: Debian's package descriptions "
        "beside the repository, or texts that are generated",
    )
    add("--work", type=Path, help="where inputs and outputs go; unset: the temporary folder")
    return parser


def _run(arguments: argparse.Namespace, work: Path) -> None:
    model = arguments.model or str(save_random_noinstruct(work / "noinstruct"))
    protocol = _protocol(arguments, model)
    texts = _texts(arguments.data, max(protocol.docs, protocol.memory_docs))
    lines = Lines("embed", None, _context(protocol, arguments.data))
    _measure(protocol, texts, work, lines)


def _protocol(arguments: argparse.Namespace, model: str) -> Protocol:
    preset = _FULL if arguments.full else _QUICK
    given = {name: getattr(arguments, name) for name in preset}
    counts = {name: preset[name] if value is None else value for name, value in given.items()}
    return Protocol(
        runs=counts["runs"],
        docs=counts["docs"],
        memory_docs=counts["memory_docs"],
        limit_tokens=arguments.limit_tokens,
        window=arguments.window,
        kind=arguments.format,
        threads=arguments.threads,
        encoder=EncoderSettings(
            model=model,
            backend=BackendName(arguments.backend),
            dtype=DtypeName(arguments.dtype),
            num_threads=arguments.threads,
        ),
    )


def _texts(data: Path | None, count: int) -> list[str]:
    return generated_texts(count) if data is None else read_folder(data)


def _context(protocol: Protocol, data: Path | None) -> Line:
    """Return what every line repeats, so that a line can be read alone."""
    config = describe_model(protocol.encoder).files.config
    return {
        "threads": protocol.threads,
        "window": protocol.window,
        "input": f"{protocol.kind}, {data.name if data else 'generated'}",
        "model": {name: config.get(name) for name in _SHAPE},
        "machine": describe_machine(),
    }


def _measure(protocol: Protocol, texts: Sequence[str], work: Path, lines: Lines) -> None:
    source = _write(protocol, texts, protocol.docs, work / "input")
    bare: list[Line] = []
    jobs: list[Line] = []
    for number in range(1, protocol.runs + 1):
        bare.append(_bare(protocol, source, work))
        lines.write("bare loop", {"run": number, **bare[-1]})
        jobs.append(_job(protocol, source, work))
        check_comparable(bare[-1], jobs[-1])
        lines.write("job", {"run": number, **jobs[-1]})
    large = None
    if protocol.memory_docs:
        large = _job(protocol, _write(protocol, texts, protocol.memory_docs, work / "large"), work)
        lines.write("job, memory", {"run": 1, **large})
    lines.write("summary", {"runs": protocol.runs, **summarize(bare, jobs, large)})


def _write(protocol: Protocol, texts: Sequence[str], count: int, folder: Path) -> Path:
    files = describe_model(protocol.encoder)
    tokenizer = Tokenizer(files.files.tokenizer, files.space.max_seq_length)
    chosen = first_tokens(sample(texts, count), tokenizer, protocol.limit_tokens)
    write_input(chosen, folder, protocol.kind, rows_per_file=_UNIT_WINDOWS * protocol.window)
    return folder


def _bare(protocol: Protocol, source: Path, work: Path) -> Line:
    threads = str(protocol.threads)
    log = work / "bare.log"
    command = [
        *(sys.executable, "-m", "benchmarks.bare_loop"),
        *("--input", str(source), "--format", protocol.kind, "--window", str(protocol.window)),
        *("--settings", protocol.encoder.model_dump_json()),
    ]
    # As the job sets them for its actors.
    run(
        command,
        log,
        {
            "RAYON_NUM_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
        },
        folder=REPOSITORY,
    )
    result: Line = json.loads(log.read_text().splitlines()[-1])
    return result


def _job(protocol: Protocol, source: Path, work: Path) -> Line:
    output = work / "vectors"
    try:
        return run_whole_job(
            source,
            output,
            protocol.encoder,
            threads=protocol.threads,
            window=protocol.window,
            folder=REPOSITORY,
        )
    finally:
        shutil.rmtree(output, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
