"""Rows in = rows out + rows rejected, shown from the footers of a unit's shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pipelines.corpus.index import IndexedShard
from pipelines.source.units import WorkUnit

__all__ = ["conservation_problems"]


def conservation_problems(
    shards: Iterable[IndexedShard], units: Iterable[WorkUnit] = ()
) -> list[str]:
    """Return what does not add up, a line each; empty when every row is accounted for.

    Args:
        shards: Shards of complete or incomplete units.
        units: Units of the plan; where one knows its number of rows and is complete, its shards
            must account for just as many.
    """
    by_unit: dict[str, list[IndexedShard]] = defaultdict(list)
    for shard in shards:
        by_unit[shard.name.unit].append(shard)
    expected = {unit.key: unit for unit in units if unit.rows is not None}
    problems: list[str] = []
    for key in sorted(by_unit):
        unit_shards = sorted(by_unit[key], key=lambda shard: shard.name.ordinal)
        problems += _unit_problems(unit_shards)
        unit = expected.get(key)
        end = unit_shards[-1]
        unreadable = sum(shard.footer.unreadable for shard in unit_shards)
        if unit and end.name.last and not unreadable and end.footer.row_stop != unit.rows:
            problems.append(
                f"{unit.label}: the source has {unit.rows} rows, its shards account for "
                f"{end.footer.row_stop}"
            )
    return problems


def _unit_problems(shards: list[IndexedShard]) -> Iterable[str]:
    row = 0
    for position, shard in enumerate(shards):
        footer = shard.footer
        if shard.name.ordinal != position:
            yield f"{shard.name}: shard {position} of its unit is missing"
            return
        if footer.row_start != row:
            yield f"{shard.name}: begins at source row {footer.row_start}, expected {row}"
        if shard.source_rows != footer.documents + footer.rejected:
            yield (
                f"{shard.name}: {shard.source_rows} source rows, but {footer.documents} embedded "
                f"and {footer.rejected} rejected"
            )
        if footer.rows < footer.documents:
            yield f"{shard.name}: {footer.rows} rows for {footer.documents} documents"
        row = footer.row_stop
