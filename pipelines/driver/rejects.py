"""Whether a corpus took so little of its sources that something must be wrong with them.

Rejected rows are committed like others, so the next run has nothing to do and would find nothing
wrong: what is judged is what is live, whichever run wrote it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pipelines.corpus.index import IndexedShard
from pipelines.errors import TooManyRejectedError

__all__ = ["sources_without_rows", "too_many_rejected"]

_JUDGED_FROM = 100
"""Rejected rows. Of a night with one document, which is empty, the share says nothing."""


def sources_without_rows(shards: Iterable[IndexedShard]) -> list[str]:
    """Return the URIs of the sources of which something was rejected and nothing embedded."""
    documents: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for shard in shards:
        documents[shard.footer.source] += shard.footer.documents
        rejected[shard.footer.source] += _rejected(shard)
    return sorted(uri for uri in rejected if rejected[uri] and not documents[uri])


def too_many_rejected(
    shards: Sequence[IndexedShard], *, most: float, rejects: str
) -> TooManyRejectedError | None:
    """Return the error of a run that rejected more of its rows than it may.

    Each run by itself: in a corpus of years one night in which every row was rejected is a trifle.
    A file, or the rest of one, that could not be read counts as one row.

    Args:
        shards: What is live.
        most: Largest share of a run's rows that may be rejected. A run that rejected fewer than a
            hundred passes, unless none may be.
        rejects: URI of the folder that says why.
    """
    rows: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for shard in shards:
        rows[shard.footer.run_id] += shard.source_rows + shard.footer.unreadable
        rejected[shard.footer.run_id] += _rejected(shard)
    fewest = _JUDGED_FROM if most else 1
    beyond = [run for run, bad in rejected.items() if bad >= fewest and bad > most * rows[run]]
    if not beyond:
        return None
    run = max(beyond, key=rejected.__getitem__)
    worst = max(
        (shard for shard in shards if shard.footer.run_id == run),
        key=_rejected,
    )
    others = f" (and {len(beyond) - 1} more runs likewise)" if len(beyond) > 1 else ""
    return TooManyRejectedError(
        f"run {run} rejected {rejected[run]:,} of {rows[run]:,} rows{others}, --max-rejected "
        f"allows {most:.0%}: most of them in {worst.footer.source}, for the reasons in "
        f"{rejects}/{worst.name}. The index is published. Correct the files, which are then "
        "embedded again, or raise --max-rejected if they are meant to be so"
    )


def _rejected(shard: IndexedShard) -> int:
    return shard.footer.rejected + shard.footer.unreadable
