"""The end of a run: publish until nobody else has changed what is there, then look at the ids."""

from __future__ import annotations

import logging
from dataclasses import replace

from pipelines.corpus.ids import find_duplicate_ids
from pipelines.corpus.index import INDEX_FILE, IndexedShard, list_shards, read_index
from pipelines.driver.publisher import Published, Publisher
from pipelines.driver.retire import Retirement
from pipelines.errors import CorpusError, DuplicateIdError

__all__ = ["publish"]

_LOG = logging.getLogger(__name__)
_MOST_LOOKS = 3


def publish(publisher: Publisher) -> list[CorpusError]:
    """Publish the index of what is live, then delete what is retired.

    Args:
        publisher: Of the run.

    Returns:
        What is wrong with the corpus as it is published: the caller raises it once the report is
        written.
    """
    storage = publisher.storage
    for _ in range(_MOST_LOOKS):
        sizes = list_shards(storage)
        found = publisher.publish(sizes)
        if list_shards(storage).keys() == found.left:
            break
        # Another job committed or retired meanwhile, and may have published before us.
    duplicates = None
    if publisher.settings.check_ids and not found.index.ids_checked:
        # Last, and once: of a billion ids it takes half an hour, in which a run may be ended.
        lost: FileNotFoundError | None = None
        try:
            duplicates = _check_ids(publisher, found)
        except FileNotFoundError as error:
            lost = error
        sizes = list_shards(storage)
        if sizes.keys() != found.left:
            # What we have published in the end must not be older than what another job has.
            found = publisher.publish(sizes)
            if lost:
                _LOG.warning("ids were not compared: another job has retired shards meanwhile")
        elif lost:
            raise lost
    refused = found.retirement.refused
    return [*found.unaccounted, *(p for p in (duplicates, refused) if p is not None)]


def _check_ids(publisher: Publisher, published: Published) -> DuplicateIdError | None:
    """Look for duplicate ids; note in the index that there are none."""
    storage, index = publisher.storage, published.index
    found = find_duplicate_ids(
        storage,
        [shard.name for shard in index.shards],
        id_column=publisher.pin.layout.id_column,
        rows=_rows(index.shards),
    )
    if not found:
        checked = replace(index, ids_checked=True).to_json().encode()
        if read_index(storage) == index:  # else another job has published, and checks
            storage.replace(INDEX_FILE, checked)
        return None
    identity, chunk, where = found[0]
    chunk_note = f" (chunk {chunk})" if chunk else ""
    return DuplicateIdError(
        f"ids are not unique: {identity!r}{chunk_note} occurs in shards "
        f"{' and '.join(sorted(set(where)))}"
        f"{f', and {len(found) - 1} more ids or so' if len(found) > 1 else ''}; all rows are "
        f"written. {_advice(published.retirement)}"
    )


def _advice(retirement: Retirement) -> str:
    if retirement.gone:
        return (
            f"{len(retirement.gone)} sources are gone but live ({retirement.gone[0]}): if their "
            "rows have moved, --prune retires the old ones"
        )
    return "Make --id-column unique in the source and run again, or pass --no-check-ids"


def _rows(shards: tuple[IndexedShard, ...]) -> int:
    return sum(shard.footer.rows for shard in shards)
