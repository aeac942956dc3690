"""Figures that `--expect` names: METRIC=VALUE, or a JSON file of published ones.

A file is a plain {"ndcg_at_10": 0.645, ...}, or a model card's table:
{"results": [{"name": "MTEB SciFact", "dataset": "mteb/scifact", "split": "test", "metrics": ...}]}.
Cards are in per cent, mteb's own files are fractions of 1; a table with a value above 1 is taken
to be in per cent as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from encoder.errors import InvalidInputError
from pipelines.evaluation.expectation import Expectation, parse_expectations

__all__ = ["read_expectations"]


def read_expectations(
    texts: Sequence[str], known: Collection[str], *, dataset: str, split: str
) -> tuple[Expectation, ...]:
    """Return what is expected of a dataset's metrics.

    Args:
        texts: As given to `--expect`.
        known: Metrics that will be measured; others of a file are passed over.
        dataset: Name of the dataset's folder, by which its row of a card's table is found.
        split: Of the judgements.

    Raises:
        InvalidInputError: A text is neither METRIC=VALUE nor a file, or the file says nothing of
            this dataset or these metrics.
    """
    found: list[Expectation] = []
    for text in texts:
        if "=" in text:
            found += parse_expectations([text], known)
        else:
            found += _of_file(text, known, dataset, split)
    return tuple(found)


def _of_file(name: str, known: Collection[str], dataset: str, split: str) -> list[Expectation]:
    content = _read(name)
    table: Mapping[str, Any] = content
    if "results" in content:
        table = _row(name, content["results"], dataset, split)
    values = {metric: table[metric] for metric in known if metric in table}
    if not values or not all(_is_number(value) for value in values.values()):
        raise InvalidInputError(
            f"--expect: expected numbers for metrics such as ndcg_at_10 in {name}, found "
            f"{', '.join(map(str, list(table)[:5])) or 'nothing'}"
        )
    scale = 100 if any(value > 1 for value in values.values()) else 1
    return [Expectation(metric, value / scale) for metric, value in values.items()]


def _read(name: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(
            f"--expect: expected METRIC=VALUE or a JSON file, found {name!r}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise InvalidInputError(f"--expect: {name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"--expect: expected a JSON object in {name}, found another value")
    return content


def _row(name: str, results: object, dataset: str, split: str) -> Mapping[str, Any]:
    """Return the metrics of the row that names the dataset, by its folder or its title."""
    rows = [row for row in results if _is_row(row)] if isinstance(results, list) else []
    wanted = _plain(dataset)
    matching = [
        row
        for row in rows
        if wanted in (_plain(row["name"].removeprefix("MTEB ")), _plain(_last_part(row)))
        and row.get("split", split) == split
    ]
    if len(matching) != 1:
        raise InvalidInputError(
            f"--expect: expected one row of {name} named after the dataset's folder, {dataset!r}, "
            f"with split {split!r}, found {len(matching)} of {len(rows)}; rename the folder, or "
            "give METRIC=VALUE"
        )
    metrics: Mapping[str, Any] = matching[0]["metrics"]
    return metrics


def _is_row(row: object) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("name"), str)
        and isinstance(row.get("metrics"), dict)
    )


def _last_part(row: Mapping[str, Any]) -> str:
    return str(row.get("dataset", "")).rpartition("/")[2]


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
