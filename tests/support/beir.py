"""Small datasets in BEIR's layout, and the real one where it is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

__all__ = ["CORPUS", "QUERIES", "evaluation_data", "write_beir"]

REPOSITORY = Path(__file__).resolve().parents[2]
HEADER = "query-id\tcorpus-id\tscore"
CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "They purr."},
    {"_id": "d2", "title": "", "text": "Dogs bark."},
    {"_id": "d3", "title": "Fish", "text": "They swim in the sea."},
]
QUERIES = [
    {"_id": "q1", "text": "what purrs"},
    {"_id": "q2", "text": "what swims"},
    {"_id": "unjudged", "text": "what flies"},
]
QRELS = ["q1\td1\t1", "q1\td2\t0", "q2\td3\t2"]


def write_beir(
    folder: Path,
    corpus: Sequence[Mapping[str, object]] = CORPUS,
    queries: Sequence[Mapping[str, object]] = QUERIES,
    qrels: Sequence[str] = QRELS,
    *,
    header: str = HEADER,
) -> Path:
    """Write a dataset with judgements for the split "test"."""
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("\n".join([header, *qrels, ""]), encoding="utf-8")
    return folder


def evaluation_data(name: str) -> Path:
    """Return a folder of real data, or skip the test where it is not."""
    given = os.environ.get("TWOFOLD_EVALUATION_DATA")
    folder = (Path(given) if given else REPOSITORY.parent / "shared" / "data") / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; TWOFOLD_EVALUATION_DATA says where evaluation data is")
    return folder
