"""Which parts of a corpus a sample is of: bounded bytes, from all over it, the same each time.

A corpus no larger than the bound is read whole. Of a larger one each kind of unit gives pieces:
random byte ranges of JSON lines and text, random row groups of Parquet, and the heads of files
that can only be read from their beginning (CSV, compressed). Pieces are work units themselves, so
the job's own readers read them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.source.listing import open_filesystem
from pipelines.source.units import RangeKind, WorkUnit
from pipelines.store_client import client_errors

__all__ = ["PIECES", "Piece", "choose_pieces", "readable"]

PIECES = 16
"""Pieces of each kind: enough to see how much they differ."""
_SEED = 0


@dataclass(frozen=True)
class Piece:
    """A part of a corpus that is read.

    Attributes:
        unit: What is read, as a unit.
        planned: The unit of the plan that it lies in.
        stored_bytes: Stored bytes of it.
        whole: Whether it is the planned unit itself.
    """

    unit: WorkUnit
    planned: WorkUnit
    stored_bytes: int
    whole: bool

    @property
    def is_head(self) -> bool:
        """Whether the file must be cut off, since it has no ranges."""
        return not self.whole and self.unit.kind is RangeKind.FILE


def choose_pieces(units: Sequence[WorkUnit], sample_bytes: int) -> list[Piece]:
    """Choose what is read.

    Args:
        units: Of the corpus, none UNREADABLE.
        sample_bytes: Stored bytes that may be read, shared between the kinds of units.
    """
    if sum(unit.size_bytes for unit in units) <= sample_bytes:
        return [Piece(unit, unit, unit.size_bytes, whole=True) for unit in units]
    kinds = {kind: [u for u in units if u.kind is kind] for kind in RangeKind}
    present = {kind: found for kind, found in kinds.items() if found}
    chooser = random.Random(_SEED)
    share = sample_bytes // len(present)
    return [piece for found in present.values() for piece in _pieces(found, share, chooser)]


def _pieces(units: Sequence[WorkUnit], share_bytes: int, chooser: random.Random) -> Iterator[Piece]:
    """Yield pieces of units of one kind; a unit is drawn by its size, a file at most once."""
    piece_bytes = max(1, share_bytes // PIECES)
    sizes = [max(1, unit.size_bytes) for unit in units]
    if units[0].kind is RangeKind.FILE:
        count = min(PIECES, len(units))
        for unit in chooser.sample(list(units), count):
            yield _head_of(unit, max(1, share_bytes // count))
        return
    for unit in chooser.choices(units, weights=sizes, k=PIECES):
        if unit.kind is RangeKind.BYTES:
            # The piece may reach into the next unit; a line belongs to where it begins.
            start = chooser.randrange(unit.start, max(unit.start + 1, unit.stop))
            stop = min(start + piece_bytes, unit.source.size_bytes)
            part = replace(unit, start=start, stop=stop, size_bytes=stop - start, first_row=None)
            yield Piece(part, unit, part.size_bytes, whole=False)
        else:
            group = chooser.randrange(unit.start, max(unit.start + 1, unit.stop))
            stop = min(group + 1, unit.stop)
            part = replace(unit, start=group, stop=stop, rows=None, first_row=None)
            yield Piece(part, unit, piece_bytes, whole=False)


def _head_of(unit: WorkUnit, most_bytes: int) -> Piece:
    whole = unit.size_bytes <= most_bytes
    return Piece(unit, unit, min(unit.size_bytes, most_bytes), whole=whole)


@contextmanager
def readable(piece: Piece) -> Iterator[WorkUnit]:
    """Give the unit to read; a file's head is copied into a temporary file of the same name.

    A head ends in the middle of a row: its reader raises there, or gives one broken row.
    """
    if not piece.is_head:
        yield piece.unit
        return
    source = piece.unit.source
    with TemporaryDirectory(prefix="twofold-sample-") as folder:
        copy = Path(folder) / source.uri.rpartition("/")[2]
        copy.write_bytes(_head(source.uri, piece.stored_bytes))
        yield replace(piece.unit, source=replace(source, uri=str(copy)))


def _head(uri: str, size_bytes: int) -> bytes:
    fs, path = open_filesystem(uri)
    with client_errors("read", uri):
        return bytes(fs.cat_file(path, start=0, end=size_bytes))
