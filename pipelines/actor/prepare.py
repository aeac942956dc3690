"""From documents to rows ready for the forward: long texts, tokens, hashes.

A `PreparedBatch` is columnar and can be cut between source rows, which is how shards get their
exact size. Runs on the read-ahead thread: the tokenizer is Rust and releases the GIL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa

from encoder.errors import InvalidInputError
from encoder.role_tokenizer import RoleTokenizer
from encoder.space import Role
from encoder.tokenizer import Tokenized
from pipelines.columns import TEXT_HASH_BYTES
from pipelines.settings import OnLong
from pipelines.source.documents import DocumentBatch, Reject
from pipelines.source.text_rules import id_text

__all__ = ["LongTexts", "PreparedBatch", "concatenate", "prepare", "text_hash"]


@dataclass(frozen=True)
class LongTexts:
    """What happens to texts of more than `max_seq_length` tokens.

    Attributes:
        policy: Truncate, chunk or reject.
        overlap: Tokens shared by neighbouring chunks.
    """

    policy: OnLong
    overlap: int = 0


@dataclass(frozen=True)
class PreparedBatch:
    """Output rows of a contiguous range of source rows; m output rows.

    Attributes:
        row_start: First source row accounted for, counted from the unit's start.
        row_stop: One past the last.
        rows: (m,) int64, ascending: source row of each output row; a chunked one occurs repeatedly.
        chunk_index: (m,) int32: 0, 1, ... within a source row.
        char_start: (m,) int64: where the text given to the tokenizer begins in the document.
        char_end: (m,) int64: where it ends.
        hashes: m blake2b-128 digests of the text given to the tokenizer.
        tokenized: m texts' tokens.
        carried: m rows of id and pass-through columns.
        rejects: The source rows that are not in `rows`.
    """

    row_start: int
    row_stop: int
    rows: np.ndarray
    chunk_index: np.ndarray
    char_start: np.ndarray
    char_end: np.ndarray
    hashes: list[bytes]
    tokenized: Tokenized
    carried: pa.RecordBatch
    rejects: list[Reject]

    @property
    def weights(self) -> np.ndarray:
        """(row_stop - row_start,) int64: what each source row counts towards a shard's size."""
        outputs = np.bincount(self.rows - self.row_start, minlength=self.row_stop - self.row_start)
        return np.maximum(outputs, 1)

    def cut(self, row_start: int, row_stop: int) -> PreparedBatch:
        """Return the part that accounts for source rows [row_start, row_stop).

        A reject without a row (the rest of a file) is in no part: it comes in a batch of its own.
        """
        low, high = (int(i) for i in np.searchsorted(self.rows, [row_start, row_stop]))
        rejects = [
            reject
            for reject in self.rejects
            if reject.row is not None and row_start <= reject.row < row_stop
        ]
        return self._taken(np.arange(low, high), row_start, row_stop, rejects)

    def without(self, positions: Sequence[int], rejects: Sequence[Reject]) -> PreparedBatch:
        """Return the batch with some output rows taken out and their source rows rejected.

        Every chunk of a rejected source row goes with it: a document is embedded whole or not.

        Args:
            positions: Output rows that failed.
            rejects: Why, one for each source row that they belong to.
        """
        keep = np.flatnonzero(~np.isin(self.rows, self.rows[list(positions)]))
        return self._taken(keep, self.row_start, self.row_stop, [*self.rejects, *rejects])

    def _taken(
        self, chosen: np.ndarray, row_start: int, row_stop: int, rejects: list[Reject]
    ) -> PreparedBatch:
        positions = [int(i) for i in chosen]
        return PreparedBatch(
            row_start=row_start,
            row_stop=row_stop,
            rows=self.rows[chosen],
            chunk_index=self.chunk_index[chosen],
            char_start=self.char_start[chosen],
            char_end=self.char_end[chosen],
            hashes=[self.hashes[i] for i in positions],
            tokenized=self.tokenized.take(positions),
            carried=self.carried.take(pa.array(chosen, pa.int64())),
            rejects=rejects,
        )


def text_hash(text: str) -> bytes:
    """Return the blake2b-128 digest of a text's UTF-8."""
    return hashlib.blake2b(text.encode(), digest_size=TEXT_HASH_BYTES).digest()


def prepare(
    batch: DocumentBatch, tokenizer: RoleTokenizer, role: Role, long_texts: LongTexts
) -> PreparedBatch:
    """Tokenize a batch of documents, with long ones truncated, cut into chunks or rejected.

    Raises:
        InvalidInputError: The overlap leaves no room for text in a chunk.
    """
    prompt = tokenizer.space.role(role).prompt
    tokenized = tokenizer.tokenize(batch.texts, role)
    rejects = list(batch.rejects)
    spans = [[(0, len(text))] for text in batch.texts]
    if long_texts.policy is not OnLong.TRUNCATE:
        for i in map(int, np.flatnonzero(tokenized.truncated)):
            if long_texts.policy is OnLong.CHUNK:
                spans[i] = tokenizer.windows(batch.texts[i], overlap=long_texts.overlap, role=role)
            else:
                spans[i] = []
                rejects.append(_too_long(batch, i, tokenizer.space.max_seq_length))
    texts = [[t[start:end] for start, end in s] for t, s in zip(batch.texts, spans, strict=True)]
    if long_texts.policy is not OnLong.TRUNCATE:
        tokenized = _with_parts(tokenized, texts, tokenizer, role)
    counts = [len(parts) for parts in texts]
    source = np.repeat(np.arange(len(texts)), counts)
    flat = list(chain.from_iterable(spans))
    return PreparedBatch(
        row_start=batch.row_start,
        row_stop=batch.row_stop,
        rows=np.asarray(batch.rows, np.int64)[source],
        chunk_index=np.fromiter(chain.from_iterable(map(range, counts)), np.int32, len(flat)),
        char_start=np.fromiter((start for start, _ in flat), np.int64, len(flat)),
        char_end=np.fromiter((end for _, end in flat), np.int64, len(flat)),
        hashes=[text_hash(prompt + part) for part in chain.from_iterable(texts)],
        tokenized=tokenized,
        carried=batch.carried.take(pa.array(source, pa.int64())),
        rejects=rejects,
    )


def _with_parts(
    tokenized: Tokenized, texts: list[list[str]], tokenizer: RoleTokenizer, role: Role
) -> Tokenized:
    """Put the tokens of their parts, of which there may be none, in the place of long texts."""
    pieces: list[Tokenized] = []
    position = 0
    for i in [*map(int, np.flatnonzero(tokenized.truncated)), len(texts)]:
        pieces.append(tokenized.take(range(position, i)))
        if i < len(texts):
            pieces.append(tokenizer.tokenize(texts[i], role))
        position = i + 1
    return Tokenized.join(pieces)


def _too_long(batch: DocumentBatch, i: int, max_seq_length: int) -> Reject:
    return Reject(
        id=id_text(batch.carried.column(0)[i].as_py()),
        row=batch.rows[i],
        reason=f"text is longer than max_seq_length ({max_seq_length} tokens)",
        stage="chunk",
    )


def concatenate(parts: Sequence[PreparedBatch]) -> PreparedBatch:
    """Join batches of one unit that follow each other without a gap."""
    if len(parts) == 1:
        return parts[0]
    table = pa.Table.from_batches([part.carried for part in parts]).combine_chunks()
    batches = table.to_batches()
    if len(batches) > 1:
        raise InvalidInputError(
            f"pass-through columns of {table.num_rows:,} rows hold more than 2 GiB, which no shard "
            "can; lower --rows-per-shard"
        )
    return PreparedBatch(
        row_start=parts[0].row_start,
        row_stop=parts[-1].row_stop,
        rows=np.concatenate([part.rows for part in parts]),
        chunk_index=np.concatenate([part.chunk_index for part in parts]),
        char_start=np.concatenate([part.char_start for part in parts]),
        char_end=np.concatenate([part.char_end for part in parts]),
        hashes=[digest for part in parts for digest in part.hashes],
        tokenized=Tokenized.join([part.tokenized for part in parts]),
        carried=batches[0] if batches else parts[0].carried,
        rejects=[reject for part in parts for reject in part.rejects],
    )
