"""Reads pieces of a corpus and tokenizes some of their documents, with the job's own code.

So what the job rejects, truncates or chunks is rejected, truncated or chunked here, and what
reading and tokenizing cost is what they cost the job.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from encoder.errors import InvalidInputError
from encoder.role_tokenizer import RoleTokenizer
from encoder.space import Role
from encoder.tokenizer import Tokenized
from pipelines.actor.prepare import LongTexts, PreparedBatch, prepare
from pipelines.errors import UnreadableSourceError
from pipelines.sampling.pieces import Piece, choose_pieces, readable
from pipelines.sampling.strata import PieceCounts, Stratum
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.documents import DocumentBatch, read_documents
from pipelines.source.units import RangeKind, WorkUnit

__all__ = ["CorpusSample", "sample_corpus"]

_SEED = 0


@dataclass
class CorpusSample:
    """What was read of a corpus.

    Attributes:
        strata: By kind of unit.
        whole: Whether all of it was read.
        read_cpu_s: Processor time of reading, all threads.
        tokenize_cpu_s: Processor time of tokenizing and hashing.
        prepared: The tokenized documents.
    """

    strata: list[Stratum]
    whole: bool
    read_cpu_s: float = 0.0
    tokenize_cpu_s: float = 0.0
    prepared: list[PreparedBatch] = field(default_factory=list)

    @property
    def rows_read(self) -> int:
        """Source rows that were read."""
        return sum(piece.rows for stratum in self.strata for piece in stratum.pieces)

    @property
    def sampled(self) -> int:
        """Documents that were tokenized."""
        return sum(piece.sampled for stratum in self.strata for piece in stratum.pieces)

    @property
    def sampled_tokens(self) -> int:
        """Their tokens."""
        return sum(int(part.tokenized.n_tokens.sum()) for part in self.prepared)


def sample_corpus(
    units: Sequence[WorkUnit],
    columns: CorpusColumns,
    tokenizer: RoleTokenizer,
    *,
    role: Role,
    long_texts: LongTexts,
    sample_bytes: int,
    sample_documents: int,
) -> CorpusSample:
    """Read pieces of a corpus and tokenize some of their documents.

    Args:
        units: The plan's.
        columns: What is read of every row.
        tokenizer: The model's.
        role: Role of the rows.
        long_texts: Treatment of long texts.
        sample_bytes: Stored bytes that may be read.
        sample_documents: Documents that are tokenized, as many from each piece.

    Raises:
        InvalidInputError: No document was found.
        UnreadableSourceError: A file is damaged.
    """
    pieces = choose_pieces(units, sample_bytes)
    whole = all(piece.whole for piece in pieces)
    strata = {kind: Stratum([u for u in units if u.kind is kind], whole) for kind in RangeKind}
    sample = CorpusSample([s for s in strata.values() if s.units], whole)
    share = max(1, sample_documents // max(1, len(pieces)))
    chooser = random.Random(_SEED)
    for piece in pieces:
        batches = _read(piece, columns, sample)
        documents = sum(len(batch.texts) for batch in batches)
        chosen = min(share, documents)
        start = time.process_time()
        prepared = [
            prepare(part, tokenizer, role, long_texts) for part in _choose(batches, chosen, chooser)
        ]
        sample.tokenize_cpu_s += time.process_time() - start
        sample.prepared += prepared
        tokenized = Tokenized.join([part.tokenized for part in prepared])
        strata[piece.planned.kind].pieces.append(
            PieceCounts(
                stored_bytes=piece.stored_bytes,
                rows=sum(batch.row_stop - batch.row_start for batch in batches),
                documents=documents,
                sampled=chosen,
                lengths=tokenized.n_tokens,
                truncated=int(tokenized.truncated.sum()),
            )
        )
    if not sample.sampled_tokens:
        raise InvalidInputError(
            f"expected documents, found none in {len(pieces)} pieces ({sample.rows_read:,} rows) "
            "of the input; check --text-column and --id-column"
        )
    return sample


def _read(piece: Piece, columns: CorpusColumns, sample: CorpusSample) -> list[DocumentBatch]:
    """Read a piece; of a row group no more text than the piece may have bytes."""
    batches: list[DocumentBatch] = []
    most = (
        None if piece.whole or piece.unit.kind is not RangeKind.ROW_GROUPS else piece.stored_bytes
    )
    size = 0
    with readable(piece) as unit:
        start = time.process_time()
        try:
            for batch in read_documents(unit, columns):
                batches.append(batch)
                size += sum(map(len, batch.texts))
                if most is not None and size >= most:
                    break
        except UnreadableSourceError:
            if not piece.is_head:
                raise
        sample.read_cpu_s += time.process_time() - start
    return batches


def _choose(
    batches: Sequence[DocumentBatch], count: int, chooser: random.Random
) -> Iterator[DocumentBatch]:
    """Yield the batches with `count` of their documents, each as likely as any other."""
    total = sum(len(batch.texts) for batch in batches)
    chosen = np.array(sorted(chooser.sample(range(total), count)), np.int64)
    first = 0
    for batch in batches:
        low, high = np.searchsorted(chosen, [first, first + len(batch.texts)])
        positions = chosen[low:high] - first
        first += len(batch.texts)
        if len(positions):
            yield DocumentBatch(
                row_start=batch.row_start,
                row_stop=batch.row_stop,
                texts=[batch.texts[i] for i in positions],
                rows=[batch.rows[i] for i in positions],
                carried=batch.carried.take(pa.array(positions)),
                rejects=[],
            )
