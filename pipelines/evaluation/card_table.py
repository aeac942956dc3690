"""The MTEB table of a model card: its rows, and what mteb 2 calls what they name.

The card was made by mteb 1. Its tasks kept their names, so "MTEB STS17 (en-en)" is the subset en-en
of the task STS17; some metrics did not, and scores were percentages. `noinstruct_card.json` is the
table of avsolatorio/NoInstruct-small-Embedding-v0, unchanged. Needs no mteb.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from encoder.errors import InvalidInputError, one_line
from pipelines.errors import UnreadableSourceError

__all__ = ["CardRow", "CardTable", "read_card"]

_NAME = re.compile(r"MTEB (?P<task>\S+)( \((?P<subset>\S+)\))?")
_OF_SUBQUERIES = "MindSmallReranking"
"""mteb 1 took the best of an impression's queries; mteb 2 does so in metrics of another name."""
_RERANKING = {"map": "map_at_1000", "mrr": "mrr_at_10"}
"""mteb 1 cut MRR at 10 and MAP not at all; no task has more than 1,000 candidates a query."""


class CardRow(BaseModel):
    """One task of the card.

    Attributes:
        task: Its type ("Retrieval").
        name: As the card spells it.
        dataset: On the hub.
        config: Subset of the data set ("default", a language).
        split: Split of the data set.
        revision: Of the data set, when the card was made.
        metrics: Percentages, by the names of mteb 1.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    name: str
    dataset: str
    config: str
    split: str
    revision: str
    metrics: dict[str, float]

    @property
    def task_name(self) -> str:
        """The task's name in mteb, 1 and 2.

        Raises:
            InvalidInputError: The row's name is not one of mteb.
        """
        match = _NAME.fullmatch(self.name)
        if match is None:
            raise InvalidInputError(
                f"expected a row named 'MTEB TASK' or 'MTEB TASK (subset)', found {self.name!r}"
            )
        return match["task"]

    @property
    def subsets(self) -> tuple[str, ...]:
        """Subsets to ask mteb for; none where the task has no subsets."""
        return () if self.config == "default" else (self.config,)

    def renamed_metrics(self) -> Mapping[str, float]:
        """Return the metrics under the names of mteb 2, in percent."""
        return {self._renamed(name): value for name, value in self.metrics.items()}

    def _renamed(self, metric: str) -> str:
        if self.task == "Reranking":
            renamed = _RERANKING.get(metric, metric)
            return f"max_over_subqueries_{renamed}" if self.task_name == _OF_SUBQUERIES else renamed
        return re.sub("^cos_sim_", "cosine_", metric)


class CardTable(BaseModel):
    """A card's table.

    Attributes:
        model: Model id on the hub.
        results: The rows, in the card's order.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    results: tuple[CardRow, ...]


def read_card(file: Path | None = None) -> CardTable:
    """Read a table: `{"model": ..., "results": [row, ...]}`.

    Args:
        file: None for the table of NoInstruct that comes with this package.

    Raises:
        UnreadableSourceError: The file cannot be read, or is not such a table.
    """
    packaged = files("pipelines.evaluation") / "noinstruct_card.json"
    try:
        return CardTable.model_validate_json((file or packaged).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise UnreadableSourceError(
            f"expected a card's table as JSON in {file or packaged}, found {one_line(error)}"
        ) from error
