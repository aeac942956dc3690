"""`<output>/_index.json`: the live shards, their sources and totals. A summary, never the truth.

It is rebuilt from shard footers at the end of a run; an earlier index spares reading the footers of
shards that it lists already (a shard's content never changes under its name).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from encoder.errors import InvalidInputError, one_line
from encoder.records import check_format
from pipelines.corpus.shards import DATA, ShardFooter, ShardName, read_footer
from pipelines.errors import CorpusError
from pipelines.storage import Storage

__all__ = [
    "INDEX_FILE",
    "Index",
    "IndexedShard",
    "collect_shards",
    "list_shards",
    "published_index",
    "read_index",
]

_LOG = logging.getLogger(__name__)

INDEX_FILE = "_index.json"
_FORMAT = 1
_FOOTER_THREADS = 16
_SUMMED = ("documents", "rows", "rejected", "unreadable", "tokens", "truncated")


@dataclass(frozen=True)
class IndexedShard:
    """A shard as the index lists it."""

    name: ShardName
    size_bytes: int
    footer: ShardFooter

    @property
    def source_rows(self) -> int:
        """Source rows that the shard accounts for."""
        return self.footer.row_stop - self.footer.row_start


@dataclass(frozen=True)
class Index:
    """The live shards of a corpus.

    Attributes:
        fingerprint: Of the corpus' embedding space.
        shards: Live shards, by name.
        ids_checked: Whether ids were found unique over exactly these shards.
    """

    fingerprint: str
    shards: tuple[IndexedShard, ...]
    ids_checked: bool

    def totals(self) -> dict[str, int]:
        """Return the sums over all shards."""
        sums = {name: sum(getattr(shard.footer, name) for shard in self.shards) for name in _SUMMED}
        return {
            "shards": len(self.shards),
            "size_bytes": sum(shard.size_bytes for shard in self.shards),
            "source_rows": sum(shard.source_rows for shard in self.shards),
            **sums,
        }

    def sources(self) -> list[dict[str, Any]]:
        """Return, for each version of each source, what is live of it."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for shard in self.shards:
            footer = shard.footer
            entry = found.setdefault(
                (footer.source, footer.version),
                {
                    "uri": footer.source,
                    "version": footer.version,
                    "root": footer.root,
                    "shards": 0,
                    "source_rows": 0,
                    "documents": 0,
                    "rejected": 0,
                },
            )
            entry["shards"] += 1
            entry["source_rows"] += shard.source_rows
            entry["documents"] += footer.documents
            entry["rejected"] += footer.rejected
        return [found[key] for key in sorted(found)]

    def to_json(self) -> str:
        """Return the file's text, a shard or source a line; equal indexes give equal texts."""
        summary = {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "ids_checked": self.ids_checked,
            "totals": self.totals(),
        }
        shards = (
            {"name": str(s.name), "size_bytes": s.size_bytes, **vars(s.footer)}
            for s in sorted(self.shards, key=lambda s: s.name)
        )
        # Line by line: as one object a hundred thousand shards take ten times their text.
        return (
            f'{_line(summary)[:-1]},\n"sources": [\n{_lines(self.sources())}\n],\n'
            f'"shards": [\n{_lines(shards)}\n]}}\n'
        )

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Index:
        """Rebuild an index.

        Raises:
            NewerFormatError: A newer version of twofold wrote it.
            CorpusError: The file is not what twofold writes.
        """
        try:
            data = json.loads(text)
            check_format(data.get("format"), _FORMAT, where)
            shards = []
            for entry in data["shards"]:
                name, size_bytes = ShardName.parse(entry.pop("name")), entry.pop("size_bytes")
                if name is None:
                    raise ValueError("a shard's name is not one")
                # Types are the footers' concern: parsed strictly, 10^5 of them take 80 MB more.
                shards.append(IndexedShard(name, size_bytes, ShardFooter(**entry)))
            return cls(data["fingerprint"], tuple(shards), data["ids_checked"])
        except (AttributeError, InvalidInputError, KeyError, TypeError, ValueError) as error:
            raise CorpusError(
                f"{where} is not an index of this version of twofold ({one_line(error)}); delete "
                "it and run `twofold embed` again: it is rebuilt from the shards"
            ) from error


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True)


def _lines(entries: Iterable[dict[str, Any]]) -> str:
    return ",\n".join(map(_line, entries))


def read_index(storage: Storage) -> Index | None:
    """Return the published index, or None where no run has finished yet."""
    text = storage.read(INDEX_FILE)
    return None if text is None else Index.from_json(text, storage.below(INDEX_FILE))


def published_index(storage: Storage) -> Index | None:
    """Return the published index; None where there is none, or one that cannot be read."""
    try:
        return read_index(storage)
    except CorpusError as error:
        # It is a summary: what it says is read again from the shards.
        _LOG.warning("%s; it is rebuilt from the shards at the end of the run", error)
        return None


def list_shards(storage: Storage) -> dict[ShardName, int]:
    """List the data folder: every shard that exists, with its size in bytes."""
    parsed = ((ShardName.parse(name), size) for name, size in storage.sizes(DATA).items())
    return {name: size for name, size in parsed if name is not None}


def collect_shards(
    storage: Storage, sizes: dict[ShardName, int], known: Iterable[IndexedShard] = ()
) -> dict[ShardName, IndexedShard]:
    """Return the shards of a listing with their footers; those of `known` are not read again.

    A shard that is gone since the listing (another job has retired it) is left out.
    """
    shards = {shard.name: shard for shard in known if sizes.get(shard.name) == shard.size_bytes}
    missing = [name for name in sizes if name not in shards]
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        footers = pool.map(lambda name: _footer_if_there(storage, name), missing)
        for name, footer in zip(missing, footers, strict=True):
            if footer is not None:
                shards[name] = IndexedShard(name, sizes[name], footer)
    return shards


def _footer_if_there(storage: Storage, name: ShardName) -> ShardFooter | None:
    try:
        return read_footer(storage, name)[0]
    except FileNotFoundError:
        return None
