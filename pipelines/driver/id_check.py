"""The last look of a run: whether the ids of what it has published are unique."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipelines.corpus.ids import find_duplicate_ids
from pipelines.corpus.index import INDEX_FILE, Index, read_index
from pipelines.errors import DuplicateIdError
from pipelines.storage import Storage

__all__ = ["check_ids"]


def check_ids(
    storage: Storage, index: Index, *, id_column: str, gone: Sequence[str]
) -> DuplicateIdError | None:
    """Look for duplicate ids; note in the index that there are none.

    Args:
        storage: The output folder.
        index: As it is published.
        id_column: Column that names a row.
        gone: Sources that are live though their files are gone.

    Returns:
        What the caller raises in the end, if any id occurs twice.

    Raises:
        FileNotFoundError: Another job has retired a shard meanwhile.
    """
    found = find_duplicate_ids(
        storage,
        [shard.name for shard in index.shards],
        id_column=id_column,
        rows=sum(shard.footer.rows for shard in index.shards),
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
        f"written. {_advice(gone)}"
    )


def _advice(gone: Sequence[str]) -> str:
    if gone:
        return (
            f"{len(gone)} sources are gone but live ({gone[0]}): if their rows have moved, --prune "
            "retires the old ones"
        )
    return "Make --id-column unique in the source and run again, or pass --no-check-ids"
