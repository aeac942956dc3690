"""From files to work units: the same units for the same files, on every run and machine.

Knows how each format can be cut, nothing of columns or rows' contents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.errors import UnreadableSourceError
from pipelines.source.readers.row_groups import row_group_sizes
from pipelines.source.units import Format, RangeKind, Source, WorkUnit

__all__ = ["plan_units"]

_FOOTER_THREADS = 16
"""Footers are waited for, not computed: one read of about 64 KB each."""


def plan_units(
    sources: Sequence[Source], *, unit_bytes: int, tolerate_unreadable: bool
) -> list[WorkUnit]:
    """Return the work units of the sources, in the order of the sources and of their bytes.

    Parquet is cut at row groups and uncompressed JSONL and text at bytes, both into units of about
    `unit_bytes`; CSV (a newline may stand in quotes) and compressed files are one unit each.

    Args:
        sources: The files; only Parquet files are opened.
        unit_bytes: Stored bytes of a unit; a larger row group is a unit of its own.
        tolerate_unreadable: Plan an UNREADABLE unit for a file that is not Parquet inside,
            instead of raising.

    Raises:
        UnreadableSourceError: A Parquet file's footer cannot be decoded.
        SourceChangedError: A file is gone since it was listed.
        OSError: The store did not answer.
    """

    def plan(source: Source) -> list[WorkUnit]:
        try:
            return list(_units_of(source, unit_bytes))
        except UnreadableSourceError as error:
            if not tolerate_unreadable:
                raise
            return [_unreadable(source, str(error))]

    with ThreadPoolExecutor(_FOOTER_THREADS, thread_name_prefix="footer") as threads:
        return [unit for units in threads.map(plan, sources) for unit in units]


def _units_of(source: Source, unit_bytes: int) -> Iterator[WorkUnit]:
    if source.format is Format.PARQUET:
        return _row_group_units(source, unit_bytes)
    if source.format is Format.CSV or source.compression is not None:
        return iter([_file_unit(source)])
    return _byte_units(source, unit_bytes)


def _row_group_units(source: Source, unit_bytes: int) -> Iterator[WorkUnit]:
    """Yield units of consecutive row groups, at least one each, up to `unit_bytes`."""
    groups = row_group_sizes(source)
    start = first_row = rows = size = 0
    for index, (group_rows, group_bytes) in enumerate(groups):
        if index > start and size + group_bytes > unit_bytes:
            yield _row_group_unit(source, start, index, rows, first_row, size)
            start, first_row, rows, size = index, first_row + rows, 0, 0
        rows += group_rows
        size += group_bytes
    yield _row_group_unit(source, start, len(groups), rows, first_row, size)


def _row_group_unit(
    source: Source, start: int, stop: int, rows: int, first_row: int, size_bytes: int
) -> WorkUnit:
    return WorkUnit(
        source=source,
        kind=RangeKind.ROW_GROUPS,
        start=start,
        stop=stop,
        rows=rows,
        first_row=first_row,
        size_bytes=size_bytes,
    )


def _byte_units(source: Source, unit_bytes: int) -> Iterator[WorkUnit]:
    """Yield ranges of `unit_bytes`; an empty file is one empty range."""
    for start in range(0, max(source.size_bytes, 1), unit_bytes):
        stop = min(start + unit_bytes, source.size_bytes)
        yield WorkUnit(
            source=source,
            kind=RangeKind.BYTES,
            start=start,
            stop=stop,
            rows=None,
            # How many lines stand before a later range is known only by reading them.
            first_row=0 if start == 0 else None,
            size_bytes=stop - start,
        )


def _file_unit(source: Source) -> WorkUnit:
    return WorkUnit(
        source=source,
        kind=RangeKind.FILE,
        start=0,
        stop=0,
        rows=None,
        first_row=0,
        size_bytes=source.size_bytes,
    )


def _unreadable(source: Source, reason: str) -> WorkUnit:
    return WorkUnit(
        source=source,
        kind=RangeKind.UNREADABLE,
        start=0,
        stop=0,
        rows=None,
        first_row=None,
        size_bytes=source.size_bytes,
        reason=reason,
    )
