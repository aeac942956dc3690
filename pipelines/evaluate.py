"""`twofold evaluate TASK ...`: the table of what can be measured of a model's vectors.

    twofold evaluate retrieval --dataset s3://lake/scifact/ --model ./model

This module knows nothing of what a task does.
"""

from __future__ import annotations

from command_line.commands import Command, run_one_of

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, Command] = {
    "retrieval": Command(
        "pipelines.evaluation.retrieval:main",
        "Embed a BEIR dataset, search it exactly: nDCG, MAP, MRR, recall, precision",
    ),
    "sts": Command(
        "pipelines.evaluation.sts:main", "Correlate cosines with people's ratings of pairs"
    ),
    "classification": Command(
        "pipelines.evaluation.classification:main", "Fit a small classifier on the vectors"
    ),
    "mteb": Command("pipelines.evaluation.mteb_tasks:main", "Run tasks of the mteb package"),
    "card": Command(
        "pipelines.evaluation.card:main", "Compare results with a model card's table, or write one"
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run a task and return its exit code.

    Args:
        argv: The task's name and its arguments; None for those of the process.
    """
    return run_one_of(COMMANDS, argv, prog="twofold evaluate")
