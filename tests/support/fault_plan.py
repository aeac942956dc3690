"""What a test writes for `support/faults/sitecustomize.py`: which fault, at which step."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

__all__ = ["FaultPlan"]

REPOSITORY = Path(__file__).resolve().parents[2]


class FaultPlan:
    """A plan in a folder of its own; processes that were started with `environment` follow it.

    Steps: start (an actor), unit (it begins), before-read, read, encode, before-rejects,
    before-data, after-data, before-index.
    Actions: kill-actor, kill-driver, kill-cluster, break-device, rewrite, meet, note, sleep, raise.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "plan.json"
        self._faults: list[dict[str, Any]] = []

    def environment(self) -> dict[str, str]:
        """Return what a process needs to follow the plan; its children inherit it."""
        folders = [REPOSITORY, REPOSITORY / "tests", REPOSITORY / "tests" / "support" / "faults"]
        return {
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "TWOFOLD_FAULT_PLAN": str(self._file),
        }

    def add(self, step: str, action: str, match: str = "", times: int = 1, **more: Any) -> str:
        """Do `action` the first `times` times that `step` meets a subject that holds `match`."""
        name = uuid.uuid4().hex[:8]
        fault = {"name": name, "step": step, "action": action, "match": match, "times": times}
        self._faults.append({**fault, **more})
        self._write()
        return name

    def happened(self, name: str) -> int:
        """Return how often a fault was met so far."""
        return sum(
            path.name.removeprefix(f"{name}-").isdigit()
            for path in self._file.parent.glob(f"{name}-*")
        )

    def subjects(self, name: str) -> list[str]:
        """Return what a fault met so far, in order: names of files, labels of units."""
        noted = self._file.with_name(f"{name}-subjects")
        return noted.read_text().splitlines() if noted.exists() else []

    def clear(self) -> None:
        """Let everything go well from now on."""
        self._faults = []
        self._write()

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._faults))
        fresh.replace(self._file)
