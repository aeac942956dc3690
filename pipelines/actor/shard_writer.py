"""Writing a shard: its table, its rejects, its footer, and the commit.

The rejects file is written first and the data file last, because the data file is the commit: what
stands before it may be there without a shard, but never a shard without what belongs to it. Of
rejects that are there already, of a try that died or of another job, those of who commits count.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from encoder.errors import InvalidInputError
from pipelines.actor.events import ShardEvent
from pipelines.actor.forward import Embedded
from pipelines.actor.shard_stream import check_version
from pipelines.actor.unit_job import UnitJob
from pipelines.columns import TEXT_HASH, shard_schema
from pipelines.corpus.shards import (
    DATA,
    REJECTS,
    REUSED_ROWS,
    REUSED_TOKENS,
    ShardFooter,
    ShardName,
    read_footer,
    serialize_rejects,
    serialize_shard,
)
from pipelines.read_ahead import StageClock
from pipelines.source.documents import Reject
from pipelines.source.units import WorkUnit
from pipelines.storage import Storage

__all__ = ["ShardWriter"]


class ShardWriter:
    """Writes the shards of one run into its output folder."""

    def __init__(self, job: UnitJob, provenance: Mapping[str, str]) -> None:
        """Take the job and what to record of the model that embeds for it."""
        self._job = job
        self._provenance = dict(provenance)
        self._storage = Storage(job.output)

    def commit(
        self,
        unit: WorkUnit,
        name: ShardName,
        embedded: Embedded,
        *,
        clock: StageClock,
    ) -> ShardEvent:
        """Write a shard, or find that somebody has committed it first.

        Args:
            unit: The unit that the shard belongs to.
            name: The shard's name.
            embedded: Its rows and vectors.
            clock: Counts the time taken here; what it holds goes into the event.

        Raises:
            SourceChangedError: The source changed while it was read; nothing is written.
            StorageError: The store did not take the files.
        """
        start = time.perf_counter()
        footer = self._footer(unit, name, embedded)
        data = serialize_shard(self._table(embedded), footer, self._job.pin.space)
        check_version(unit.source)
        rejects = serialize_rejects(_rejects(unit, embedded)) if embedded.batch.rejects else None
        others = rejects is not None and not self._storage.create(f"{REJECTS}/{name}", rejects)
        created = self._storage.create(f"{DATA}/{name}", data)
        # A name that exists may be our own: the reply to an earlier try of this PUT was lost.
        ours = created or read_footer(self._storage, name)[0].run_id == self._job.run_id
        if rejects is not None and others and ours:
            self._replace_rejects(name, rejects)
        clock.add("write", time.perf_counter() - start)
        return ShardEvent(
            unit=unit.key,
            name=str(name),
            size_bytes=len(data),
            footer=footer,
            duplicate=not ours,
            seconds=clock.take(),
            committed_at=time.time(),
            reasons=_reasons(embedded.batch.rejects),
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    def _replace_rejects(self, name: ShardName, rejects: bytes) -> None:
        """Replace what a try that died, or another job, has rejected of a shard that is ours.

        Only who has committed the shard may: before that another's shard may be what they are of.
        """
        if self._storage.read(f"{REJECTS}/{name}") != rejects:
            self._storage.replace(f"{REJECTS}/{name}", rejects)

    def _table(self, embedded: Embedded) -> pa.Table:
        batch, pin = embedded.batch, self._job.pin
        schema = shard_schema(
            pin.carried, dimension=pin.space.dimension, embedding_dtype=pin.layout.embedding_dtype
        )
        with np.errstate(over="ignore"):
            vectors = embedded.vectors.astype(pin.layout.embedding_dtype, copy=False)
        if not np.isfinite(vectors).all():
            raise InvalidInputError(
                f"vectors reach {np.abs(embedded.vectors).max():g}, float16 holds 65504 at the "
                "most; use --embedding-dtype float32, or --normalize"
            )
        written = [
            pa.array(batch.chunk_index),
            pa.array(batch.char_start),
            pa.array(batch.char_end),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), pin.space.dimension),
            pa.array(batch.tokenized.n_tokens, pa.int32()),
            pa.array(batch.tokenized.truncated),
            pa.array(batch.hashes, schema.field(TEXT_HASH).type),
        ]
        return pa.Table.from_arrays([*batch.carried.columns, *written], schema=schema)

    def _footer(self, unit: WorkUnit, name: ShardName, embedded: Embedded) -> ShardFooter:
        batch = embedded.batch
        return ShardFooter(
            source=unit.source.uri,
            version=unit.source.version,
            format=unit.source.format.value,
            root=unit.source.root,
            range_kind=unit.kind.value,
            range_start=unit.start,
            range_stop=unit.stop,
            ordinal=name.ordinal,
            last=name.last,
            row_start=batch.row_start,
            row_stop=batch.row_stop,
            documents=len(np.unique(batch.rows)),
            rows=len(batch.rows),
            rejected=sum(reject.row is not None for reject in batch.rejects),
            unreadable=sum(reject.row is None for reject in batch.rejects),
            tokens=int(batch.tokenized.n_tokens.sum()),
            padded_tokens=embedded.padded_tokens,
            truncated=int(batch.tokenized.truncated.sum()),
            run_id=self._job.run_id,
            provenance=self._provenance_of(embedded),
        )

    def _provenance_of(self, embedded: Embedded) -> dict[str, str]:
        """Return what made the vectors, and how many of them were made for another row."""
        if not embedded.reused_rows:
            return self._provenance
        return {
            **self._provenance,
            REUSED_ROWS: str(embedded.reused_rows),
            REUSED_TOKENS: str(embedded.reused_tokens),
        }


def _reasons(rejects: Sequence[Reject]) -> dict[str, int]:
    """Return why rows were rejected -> how many, without the values of single rows."""
    counted = (r.reason.partition(", found ")[0] for r in rejects if r.row is not None)
    # No Counter: dataclasses.asdict makes another of it before Python 3.12.
    return dict(Counter(counted))


def _rejects(unit: WorkUnit, embedded: Embedded) -> list[dict[str, object]]:
    """Return the rows of the rejects file, in source order.

    Where the row's position in the whole source is not known (a byte range that does not begin the
    file), `source` names the range and `row` counts from its start.
    """
    ordered = sorted(
        embedded.batch.rejects, key=lambda reject: (reject.row is None, reject.row or 0)
    )
    return [
        {
            "id": reject.id,
            "source": unit.source.uri if unit.first_row is not None else unit.label,
            "row": None if reject.row is None else reject.row + (unit.first_row or 0),
            "reason": reject.reason,
            "stage": reject.stage,
        }
        for reject in ordered
    ]
