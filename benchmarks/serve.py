"""The endpoint beside its peers: requests/s and latency, closed loop and open loop, in one run.

    make bench-peers                      environments for the peers, once
    make bench-serve                      quick: 3 rounds, under 5 minutes on 2 cores
    python -m benchmarks.serve --full     5 rounds of longer cells, about 45 minutes
    python -m benchmarks.serve --overload the endpoint alone, at ten times what it can do
    python -m benchmarks.serve --traffic  the endpoint alone: rates up to the knee, documents beside

All systems serve the same model (NoInstruct's architecture, random weights) and get the same
queries, one a request, base64 asked for. They take turns within each round, and only the one whose
turn it is runs. One JSON line for each cell, one for the summary: see README.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.corpus import descriptions
from benchmarks.endpoint.load_loops import Target
from benchmarks.endpoint.overload import OverloadProtocol, measure_overload
from benchmarks.endpoint.requests import http_requests
from benchmarks.endpoint.rounds import Rounds, RoundsProtocol
from benchmarks.endpoint.servers import Servers, ray_folder
from benchmarks.endpoint.systems import System, echo, peers, twofold
from benchmarks.endpoint.traffic import DOCUMENTS_A_REQUEST, TrafficProtocol, measure_traffic
from benchmarks.lines import Line, Lines
from benchmarks.machine import describe_machine
from benchmarks.model_forms import prepare_models
from benchmarks.paths import DATA, REPOSITORY
from benchmarks.queries import generated_queries, read_banking77
from benchmarks.versions import versions_in
from benchmarks.work_folder import measure_in_folder

__all__ = ["main"]

_BANKING77 = DATA / "banking77"
_KEPT = REPOSITORY / ".bench"
_GENERATED = 10_000

_QUICK = RoundsProtocol(
    rounds=3, seconds=1.5, warm_up_s=0.5, connections=(1, 16, 64), rates=(20.0, 100.0)
)
_FULL = RoundsProtocol(
    rounds=5,
    seconds=10.0,
    warm_up_s=2.0,
    connections=(1, 16, 64),
    rates=(20.0, 50.0, 100.0, 200.0, 400.0),
)
_OTHERS = ("infinity", "sentence-transformers", "echo")
_OF_ROUNDS = ("rounds", "seconds", "warm_up_s", "connections", "rates", "max_requests", "only")
_say = Lines("serve", None, {}).write


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 where it could not be run."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    arguments.load_average = round(os.getloadavg()[0], 2)
    alone = arguments.overload or arguments.traffic
    if alone and any(getattr(arguments, name) is not None for name in _OF_ROUNDS):
        parser.error("--overload and --traffic have a protocol of their own, without other cells")
    run = _run_alone if alone else _run_rounds
    return measure_in_folder(
        lambda work: run(arguments, _queries(arguments.data), work), arguments.work
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="short cells; the default")
    mode.add_argument("--full", action="store_true", help="the whole protocol")
    mode.add_argument("--overload", action="store_true", help="knee, ten times its load, recovery")
    mode.add_argument(
        "--traffic", action="store_true", help="rates up to the knee, documents beside"
    )
    add("--rounds", type=int, help="turns of every system")
    add("--seconds", type=float, help="of a cell")
    add("--warm-up", type=float, dest="warm_up_s", help="seconds before each closed loop")
    add("--connections", type=int, nargs="+", help="of the closed loops")
    add("--rates", type=float, nargs="*", help="requests/s of the open loops; none: without value")
    add("--max-requests", type=int, help="of a cell at the most")
    add("--only", nargs="+", choices=_OTHERS, help="leave out others (twofold always runs)")
    add(
        "--device",
        default="cpu",
        help="of twofold and of the bare encoder; peers run on the CPU, and only beside that",
    )
    add("--cpus", type=int, help="of a replica, and threads of the bare encoder; unset: defaults")
    add(
        "--serve-flags",
        default="",
        help='more flags of `twofold serve`, as "--flag value"; the bare encoder has them, too',
    )
    add("--peers", type=Path, default=_KEPT / "peers", help="folder of the peers' environments")
    add(
        "--data",
        type=Path,
        default=_BANKING77 if _BANKING77.is_dir() else None,
        help="Banking77's folder; unset: beside the repository, or queries that are generated",
    )
    add("--work", type=Path, help="where logs go; unset: the temporary folder")
    return parser


def _queries(data: Path | None) -> list[str]:
    return generated_queries(_GENERATED) if data is None else read_banking77(data)


def _documents(data: Path | None) -> tuple[str, list[list[str]]]:
    """Return what they are, Debian's descriptions or texts as long, and so many a request."""
    name, texts = descriptions(None if data is None else data.parent, _GENERATED)
    size = DOCUMENTS_A_REQUEST
    return name, [texts[start : start + size] for start in range(0, len(texts) - size + 1, size)]


def _run_alone(arguments: argparse.Namespace, queries: Sequence[str], work: Path) -> None:
    models = prepare_models(_KEPT / "models", arguments.peers / "infinity-onnx/bin/python")
    # Servers end before Ray's folders are removed.
    with ray_folder() as folder, closing(Servers(work, REPOSITORY, queries)) as servers:
        system = twofold(models, _flags(arguments), folder)
        server, _ = servers.start(system)
        with servers.turn(server):
            target = Target(system.port, http_requests(queries, system.port))
            if arguments.overload:
                summary = measure_overload(target, OverloadProtocol(), _say)
            else:
                name, texts = _documents(arguments.data)
                in_bulk = http_requests(texts, system.port, input_type="document")
                documents = Target(system.port, in_bulk)
                traffic = measure_traffic(target, documents, TrafficProtocol(), _say)
                summary = {**traffic, "documents": name}
    kind = "overload" if arguments.overload else "traffic"
    _say(f"{kind} summary", {**summary, **_context(arguments, [])})


def _run_rounds(arguments: argparse.Namespace, queries: Sequence[str], work: Path) -> None:
    models = prepare_models(_KEPT / "models", arguments.peers / "infinity-onnx/bin/python")
    found, left_out = peers(models, arguments.peers)
    if arguments.device != "cpu":
        left_out |= {system.label: "runs on the CPU" for system in found}
        found = []
    with ExitStack() as stack:
        systems = [
            twofold(models, _flags(arguments), stack.enter_context(ray_folder())),
            *found,
            echo(stack.enter_context(ray_folder())),
        ]
        if arguments.only is not None:
            systems = [s for s in systems if s.name in {"twofold", *arguments.only}]
        for label, reason in left_out.items():
            _say("left out", {"system": label, "reason": reason})
        # Ended before Ray's folders are removed.
        servers = stack.enter_context(closing(Servers(work, REPOSITORY, queries)))
        rounds = stack.enter_context(
            closing(Rounds(_protocol(arguments), queries, work=work, say=_say))
        )
        rounds.start(servers, systems, ["--model", str(models.ours), *_flags(arguments)])
        summary = rounds.run(servers)
    _say("summary", {**summary, "left_out": left_out, **_context(arguments, systems)})


def _protocol(arguments: argparse.Namespace) -> RoundsProtocol:
    preset = _FULL if arguments.full else _QUICK
    return preset.with_given(
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        warm_up_s=arguments.warm_up_s,
        connections=arguments.connections,
        rates=arguments.rates,
        max_requests=arguments.max_requests,
    )


def _flags(arguments: argparse.Namespace) -> list[str]:
    cpus = [] if arguments.cpus is None else ["--num-cpus-per-replica", str(arguments.cpus)]
    return [*cpus, "--device", arguments.device, *shlex.split(arguments.serve_flags)]


def _context(arguments: argparse.Namespace, systems: Sequence[System]) -> Line:
    others = {s.label: s.python for s in systems if s.python != sys.executable}
    return {
        "queries": arguments.data.name if arguments.data else "generated",
        # Of the minute before: above a few tenths, something else was running.
        "load_average_before": arguments.load_average,
        "device": arguments.device,
        "flags": _flags(arguments),
        "machine": describe_machine(),
        "peers": {name: versions_in(python) for name, python in others.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
