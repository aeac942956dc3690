"""The account of a run: `_report.json` and the table at its end, tallied from the events."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.table import Table
from rich.text import Text

from pipelines.actor.events import Event, ShardEvent, UnitEvent
from pipelines.corpus.index import IndexedShard
from pipelines.corpus.shards import REJECTS, REUSED_ROWS, REUSED_TOKENS, ShardFooter

__all__ = ["REPORT_FILE", "RunReport", "installed_versions"]

REPORT_FILE = "_report.json"
_PACKAGES = (
    "twofold",
    "ray",
    "torch",
    "transformers",
    "tokenizers",
    "openvino",
    "pyarrow",
    "s3fs",
)
_COUNTED = (
    "documents",
    "rows",
    "rejected",
    "unreadable",
    "tokens",
    "padded_tokens",
    "truncated",
)
_MOST_REASONS = 50
_SHOWN_REASONS = 5
_OTHER_REASONS = "other reasons"
"""Reasons are few, but for what a model raises, which may name the text."""
_LIMITING_STAGES = {
    "wait": "reading and tokenizing",
    "reuse": "finding vectors of unchanged texts",
    "encode": "forward",
    "write_wait": "writing",
}
"""What an actor's main thread spends its time on. It waits where reading and tokenizing, which run
ahead of it on threads, or writing behind it did not keep up; their own seconds overlap with the
forward."""


def installed_versions() -> dict[str, str]:
    """Return the versions of what makes vectors and files here; absent packages are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass
class RunReport:
    """What one run did.

    Attributes:
        run_id: Names the run; also in the footers of its shards.
        fingerprint: Of the embedding space.
        output: URI of the output folder.
        units_planned: Units of the plan.
        units_done_before: Units that were complete when the run began.
        actors: Actors at the most.
    """

    run_id: str
    fingerprint: str
    output: str
    units_planned: int
    units_done_before: int
    actors: int = 0
    shards: int = 0
    duplicate_shards: int = 0
    source_rows: int = 0
    documents: int = 0
    rows: int = 0
    rejected: int = 0
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    truncated: int = 0
    reused_rows: int = 0
    reused_tokens: int = 0
    size_bytes: int = 0
    peak_rss_bytes: int = 0
    retired_shards: int = 0
    sources_gone: int = 0
    sources_all_rejected: int = 0
    sources_replanned: int = 0
    seconds_by_stage: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)
    started_at: float = field(default_factory=time.time)
    first_commit_at: float | None = None
    last_commit_at: float | None = None
    finished_at: float | None = None
    _counted: set[str] = field(default_factory=set)

    def add(self, event: Event) -> None:
        """Count an event. Rows that another job committed first are counted as its, not ours."""
        if isinstance(event, ShardEvent | UnitEvent):
            for stage, seconds in event.seconds.items():
                self.seconds_by_stage[stage] = self.seconds_by_stage.get(stage, 0.0) + seconds
        if not isinstance(event, ShardEvent):
            return
        self.peak_rss_bytes = max(self.peak_rss_bytes, event.peak_rss_bytes)
        if event.duplicate:
            self.duplicate_shards += 1
            return
        self._count(event.name, event.size_bytes, event.footer)
        for reason, rows in event.reasons.items():
            self._count_reason(reason, rows)
        self.first_commit_at = min(self.first_commit_at or event.committed_at, event.committed_at)
        self.last_commit_at = max(self.last_commit_at or 0.0, event.committed_at)

    def complete(self, shards: Iterable[IndexedShard]) -> None:
        """Count shards of this run whose event was lost: their worker died after the commit."""
        for shard in shards:
            if shard.footer.run_id == self.run_id and str(shard.name) not in self._counted:
                self._count(str(shard.name), shard.size_bytes, shard.footer)

    def _count(self, name: str, size_bytes: int, footer: ShardFooter) -> None:
        self._counted.add(name)
        self.shards += 1
        self.size_bytes += size_bytes
        self.source_rows += footer.row_stop - footer.row_start
        for counted in _COUNTED:
            setattr(self, counted, getattr(self, counted) + getattr(footer, counted))
        made_by = dict(footer.provenance)
        self.reused_rows += int(made_by.pop(REUSED_ROWS, 0))
        self.reused_tokens += int(made_by.pop(REUSED_TOKENS, 0))
        self.provenance = made_by

    def _count_reason(self, reason: str, rows: int) -> None:
        counts = self.rejected_by_reason
        if reason not in counts and len(counts) >= _MOST_REASONS:
            reason = _OTHER_REASONS
        counts[reason] = counts.get(reason, 0) + rows

    @property
    def wall_s(self) -> float:
        """Seconds from the run's start to its end, or to now."""
        return (self.finished_at or time.time()) - self.started_at

    @property
    def encode_tokens_per_s(self) -> float | None:
        """Tokens per second of an actor's forward, the actors' average; None before the first.

        Without starting, without other stages, without other actors: what a device can do.
        """
        seconds = self.seconds_by_stage.get("encode")
        return self._computed_tokens / seconds if seconds else None

    @property
    def padding_waste(self) -> float:
        """Share of the tokens in the forward that were padding."""
        return 1 - self._computed_tokens / self.padded_tokens if self.padded_tokens else 0.0

    @property
    def _computed_tokens(self) -> int:
        return self.tokens - self.reused_tokens

    @property
    def limited_by(self) -> str:
        """The stage that took the most of the actors' time, and its share: "forward (97%)"."""
        seconds = {stage: self.seconds_by_stage.get(stage, 0.0) for stage in _LIMITING_STAGES}
        total = sum(seconds.values())
        if not total:
            return ""
        longest = max(seconds, key=seconds.__getitem__)
        return f"{_LIMITING_STAGES[longest]} ({seconds[longest] / total:.0%})"

    def to_dict(self) -> dict[str, Any]:
        """Return what `_report.json` holds."""
        wall_s = self.wall_s
        return {
            **{name: value for name, value in vars(self).items() if not name.startswith("_")},
            "wall_s": round(wall_s, 3),
            "documents_per_s": round(self.documents / wall_s, 2),
            "tokens_per_s": round(self.tokens / wall_s, 1),
            "encode_tokens_per_s": self.encode_tokens_per_s and round(self.encode_tokens_per_s, 1),
            "padding_waste": round(self.padding_waste, 5),
            "limited_by": self.limited_by,
            "seconds_by_stage": {k: round(v, 3) for k, v in self.seconds_by_stage.items()},
            "versions": installed_versions(),
        }

    def to_json(self) -> str:
        """Return the text of `_report.json`."""
        return json.dumps(self.to_dict(), indent=2)

    def table(self) -> Table:
        """Return the table that a terminal shows at the end."""
        table = Table(title="twofold embed", show_header=False, title_justify="left")
        table.add_column()
        table.add_column(justify="right")
        for name, value in self._lines():
            table.add_row(name, Text(value, overflow="fold"))
        return table

    def _lines(self) -> list[tuple[str, str]]:
        lines = [
            ("rows in", f"{self.source_rows:,}"),
            ("rows out", f"{self.rows:,}"),
            ("rows rejected", f"{self.rejected:,}"),
            ("documents truncated", f"{self.truncated:,}"),
            ("tokens", f"{self.tokens:,}"),
            ("documents/s", f"{self.documents / self.wall_s:,.1f}"),
            ("tokens/s", f"{self.tokens / self.wall_s:,.0f}"),
            ("padding waste", f"{self.padding_waste:.1%}"),
            ("shards written", f"{self.shards:,} ({self.size_bytes / 1e6:,.1f} MB)"),
            ("units done before", f"{self.units_done_before:,} of {self.units_planned:,}"),
            ("wall time", f"{self.wall_s:,.1f} s"),
            ("space", self.fingerprint),
            ("output", self.output),
        ]
        reasons = sorted(self.rejected_by_reason.items(), key=lambda counted: -counted[1])
        stages = ", ".join(f"{k} {v:,.1f}" for k, v in sorted(self.seconds_by_stage.items()))
        optional = [
            ("vectors reused", f"{self.reused_rows:,}" if self.reused_rows else ""),
            ("rejected because", ", ".join(f"{k} ({v:,})" for k, v in reasons[:_SHOWN_REASONS])),
            ("rejects", f"{self.output}/{REJECTS}/" if self.rejected + self.unreadable else ""),
            (
                "sources all rejected",
                f"{self.sources_all_rejected:,}" if self.sources_all_rejected else "",
            ),
            ("limited by", self.limited_by),
            ("actor seconds by stage", stages),
            ("files unreadable", f"{self.unreadable:,}" if self.unreadable else ""),
            ("computed twice", f"{self.duplicate_shards} shards" if self.duplicate_shards else ""),
            ("shards retired", f"{self.retired_shards:,}" if self.retired_shards else ""),
            (
                "sources gone",
                f"{self.sources_gone:,} (--prune retires them)" if self.sources_gone else "",
            ),
            ("units failed", f"{len(self.failures):,}" if self.failures else ""),
            ("model", " ".join(self.provenance.get(k, "") for k in ("model", "backend", "dtype"))),
        ]
        versions = ", ".join(f"{k} {v}" for k, v in installed_versions().items())
        return [*lines, *((k, v) for k, v in optional if v.strip()), ("versions", versions)]
