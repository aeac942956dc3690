"""The encoder against what a user would take instead: throughput, fidelity, a lone query's wait.

    make bench                                       quick: MiniLM, 2 rounds, about 5 minutes
    python -m benchmarks.encode --full               both models, 3 rounds, an hour
    python -m benchmarks.encode --model noinstruct --texts descriptions --only twofold infinity

Every system is a process of its own on the CPU, in its own environment, with the same weights,
texts and cores. They take turns: all of them once, then again; a rate is compared with the others'
of the same round. Each round measures the machine's limit too. Lines: see README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.encoder_peers.models import MODELS, BenchmarkModel, prepare_model
from benchmarks.encoder_peers.rounds import Protocol, run_rounds
from benchmarks.encoder_peers.systems import System, all_systems
from benchmarks.encoder_peers.texts import KINDS, TextSet, load_texts
from benchmarks.errors import BenchmarkError
from benchmarks.flops import ModelShape
from benchmarks.lines import Line, Lines
from benchmarks.machine import describe_machine, use_cores
from benchmarks.paths import DATA, REPOSITORY
from benchmarks.versions import versions_in
from benchmarks.work_folder import measure_in_folder
from encoder.placement import usable_cpus
from encoder.tokenizer import Tokenizer

__all__ = ["main"]

_QUICK = {"models": ["minilm"], "rounds": 2, "tokens": 16_000}
_FULL = {"models": list(MODELS), "rounds": 3, "tokens": 48_000}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 where it cannot be run."""
    arguments = _parser().parse_args(argv)
    preset = _FULL if arguments.full else _QUICK
    for name, value in preset.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return measure_in_folder(lambda work: _run(arguments, work))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--full", action="store_true", help="the whole protocol")
    add("--model", dest="models", nargs="+", choices=MODELS, help="which models")
    add("--texts", dest="kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which texts")
    add("--only", nargs="+", default=[], metavar="NAME", help="systems whose names begin so")
    add("--rounds", type=int, help="turns of all systems")
    add("--tokens", type=int, help="of the texts of each kind; the model card gets a quarter")
    add("--least-s", type=float, default=1.0, help="encode the texts again until this is over")
    add("--singles", type=int, default=150, help="queries that are encoded one by one; 0: none")
    add("--threads", type=int, default=usable_cpus(), help="cores of every system")
    add("--lines", type=Path, help="append the lines to this file; unset: stdout")
    add("--data", type=Path, default=DATA, help="the data sets")
    add("--bench", type=Path, default=REPOSITORY / ".bench", help="models and environments")
    return parser


def _run(arguments: argparse.Namespace, work: Path) -> None:
    systems = all_systems(arguments.only)
    use_cores(arguments.threads)
    for name in arguments.models:
        folder = work / name
        folder.mkdir(exist_ok=True)
        _measure(name, systems, arguments, folder)


def _measure(
    name: str, systems: Sequence[System], arguments: argparse.Namespace, work: Path
) -> None:
    environments = arguments.bench / "peers"
    model = prepare_model(name, arguments.bench, environments / "infinity-onnx/bin/python")
    shape = ModelShape.of(json.loads((model.ours / "config.json").read_text()))
    context: Line = {
        "model_name": name,
        "model": vars(shape),
        "threads": arguments.threads,
        "machine": describe_machine(),
    }
    lines = Lines("encode", arguments.lines, context)
    present = []
    for system in systems:
        problem = system.problem(model, environments)
        if problem is None:
            present.append(system)
        else:
            lines.write("left out", {"system": system.name, "problem": problem})
    versions = {s.environment: versions_in(str(s.python(environments))) for s in present}
    protocol = Protocol(
        model=model,
        shape=shape,
        environments=environments,
        versions=versions,
        texts=_texts(model, arguments),
        rounds=arguments.rounds,
        least_s=arguments.least_s,
        singles=arguments.singles,
        threads=arguments.threads,
        work=work,
    )
    for number in run_rounds(protocol, present, lines):
        _limit(model, number, arguments)


def _texts(model: BenchmarkModel, arguments: argparse.Namespace) -> list[TextSet]:
    tokenizer = Tokenizer(model.ours / "tokenizer.json", model.max_tokens)
    return [
        load_texts(kind, arguments.data, tokenizer, arguments.tokens) for kind in arguments.kinds
    ]


def _limit(model: BenchmarkModel, number: int, arguments: argparse.Namespace) -> None:
    """Measure the machine's limit in a process of its own, which leaves nothing behind."""
    command = [
        *(sys.executable, "-m", "benchmarks.limit", "--model", str(model.ours)),
        *("--threads", str(arguments.threads), "--round", str(number), "--seconds", "0.3"),
        *("--batches", "512", "2048"),
        *(() if arguments.lines is None else ("--lines", str(arguments.lines.resolve()))),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
