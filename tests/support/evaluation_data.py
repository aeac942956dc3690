"""Real evaluation data, which is not part of the repository: there, or the test is skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["evaluation_data"]

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared" / "data"


def evaluation_data(name: str) -> Path:
    """Return the folder of a data set ("scifact"), or skip the test that asks.

    It is looked for in TWOFOLD_EVALUATION_DATA, else in ../shared/data beside the repository.
    """
    folder = Path(os.environ.get("TWOFOLD_EVALUATION_DATA", _BESIDE_THE_REPOSITORY)) / name
    if not folder.is_dir():
        pytest.skip(f"no {name} here: TWOFOLD_EVALUATION_DATA names the folder of the data sets")
    return folder
