"""Which texts are encoded together, and how long their rows are padded. Pure arithmetic.

Texts are sorted by length and cut into batches by a budget of *padded* tokens, because that is
what a forward costs; where padding would cost more than a forward of its own, a batch ends before
the budget does. Row lengths come from a short list of buckets, because OpenVINO and CUDA
graphs prepare every new shape afresh.

Short texts may also be packed, several into a row of fixed length: hardly any padding, few shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Batch",
    "Packing",
    "RowLimits",
    "bucket_length",
    "plan_batches",
    "plan_packings",
    "plan_short_texts",
]


@dataclass(frozen=True)
class Batch:
    """Texts of one forward.

    Attributes:
        indices: Positions of the texts in the input, longest first, int64 (B,).
        padded_length: Tokens that every row is padded to (T).
    """

    indices: npt.NDArray[np.int64]
    padded_length: int

    @property
    def padded_tokens(self) -> int:
        """Tokens that the forward computes: rows x padded length."""
        return len(self.indices) * self.padded_length


@dataclass(frozen=True)
class Packing:
    """Texts of one forward, several in each row.

    Attributes:
        rows: For each row the positions of its texts in the input.
        row_tokens: Tokens of a row (T).
    """

    rows: list[list[int]]
    row_tokens: int

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Positions of the texts in the input, row after row, int64 (B,)."""
        return np.array([index for row in self.rows for index in row], dtype=np.int64)

    @property
    def padded_tokens(self) -> int:
        """Tokens that the forward computes: rows x tokens of a row."""
        return len(self.rows) * self.row_tokens


@dataclass(frozen=True)
class RowLimits:
    """Rows that short texts may share, and what forwards of them cost.

    Attributes:
        row_tokens: Tokens of a row (T).
        max_texts: Texts that a row may hold.
        row_counts: Rows that a forward may have, 1 among them.
        streams: Forwards of equal size that are computed at once.
        overhead_tokens: Tokens that take as long as starting one more forward.
        padded_overhead_tokens: The same of padded texts, where both ways are compared.
    """

    row_tokens: int
    max_texts: int
    row_counts: Sequence[int]
    streams: int = 1
    overhead_tokens: int = 0
    padded_overhead_tokens: int = 0


def bucket_length(length: int, max_seq_length: int | None = None) -> int:
    """Return the padded length of a text of `length` tokens.

    Steps of 1 below 32 tokens, 2 below 64, 4 below 128 and 8 above: rounding up never adds more
    than a sixteenth, and 512 tokens have 112 buckets.

    Args:
        length: Tokens of the text.
        max_seq_length: The model's limit, which no row exceeds.
    """
    step = min(8, 1 << max(0, (length - 1).bit_length() - 5))
    padded = -(-length // step) * step
    return padded if max_seq_length is None else max(length, min(padded, max_seq_length))


def plan_batches(
    lengths: npt.ArrayLike,
    *,
    max_batch_tokens: int,
    max_seq_length: int | None = None,
    overhead_tokens: int = 0,
) -> list[Batch]:
    """Cut texts into batches of similar length, longest first, so that they cost least.

    A batch costs its padded tokens and, as every forward does, `overhead_tokens` more: texts of
    other lengths share a forward only where that is cheaper than one of their own.

    Args:
        lengths: Tokens of each text, (N,).
        max_batch_tokens: Budget of rows x padded length; a text beyond it is a batch by itself.
        max_seq_length: The model's limit, which no padded length exceeds.
        overhead_tokens: Tokens that take as long as starting one more forward.

    Returns:
        Batches that hold every index exactly once, the longest texts first: memory runs out at
        once if it does, and the last batches of parallel streams are short.
    """
    tokens = np.asarray(lengths, dtype=np.int64)
    if len(tokens) == 1:
        length = bucket_length(max(1, int(tokens[0])), max_seq_length)
        return [Batch(np.zeros(1, dtype=np.int64), length)]
    order = np.argsort(-tokens, kind="stable")
    distinct, positions = np.unique(tokens[order], return_inverse=True)
    buckets = [bucket_length(max(1, length), max_seq_length) for length in distinct.tolist()]
    padded = np.asarray(buckets, dtype=np.int64)[positions]  # (N,)
    batches = []
    for first, end in _cheapest_groups(padded, max_batch_tokens, overhead_tokens):
        rows = max(1, max_batch_tokens // int(padded[first]))
        batches += [
            Batch(order[start : min(start + rows, end)], int(padded[start]))
            for start in range(first, end, rows)
        ]
    return batches


def plan_packings(lengths: npt.ArrayLike, limits: RowLimits) -> list[Packing]:
    """Pack texts into rows, each into the fullest row that still has room, longest first.

    Args:
        lengths: Tokens of each text, (N,), none more than a row has.
        limits: Of the rows; each stream gets an equal share of them, cut into `row_counts`.

    Returns:
        Packings that hold every index exactly once.
    """
    tokens, row_tokens = np.asarray(lengths, dtype=np.int64), limits.row_tokens
    with_room: list[list[list[int]]] = [[] for _ in range(row_tokens + 1)]
    rows: list[list[int]] = []
    for index in np.argsort(-tokens, kind="stable").tolist():
        length = max(1, int(tokens[index]))
        room = next((room for room in range(length, row_tokens) if with_room[room]), row_tokens)
        if room == row_tokens:
            row: list[int] = []
            rows.append(row)
        else:
            row = with_room[room].pop()
        row.append(index)
        if len(row) < limits.max_texts:
            with_room[room - length].append(row)
    share = max(1, -(-len(rows) // limits.streams))
    return [
        Packing(forward, row_tokens)
        for start in range(0, len(rows), share)
        for forward in _cut(rows[start : start + share], limits.row_counts)
    ]


def _cut(rows: list[list[int]], row_counts: Sequence[int]) -> Iterator[list[list[int]]]:
    """Cut rows into parts of the allowed sizes, the largest first."""
    while rows:
        count = max(count for count in row_counts if count <= len(rows))
        yield rows[:count]
        rows = rows[count:]


def plan_short_texts(
    lengths: npt.ArrayLike,
    limits: RowLimits,
    *,
    max_batch_tokens: int,
    max_seq_length: int | None = None,
    overhead_tokens: int = 0,
) -> tuple[list[Batch], list[Packing]]:
    """Plan texts of which the short ones may be packed, where that costs no more than padding.

    Args:
        lengths: Tokens of each text, (N,).
        limits: Of rows that short texts share.
        max_batch_tokens: As for `plan_batches`, like the next two.
        max_seq_length: The model's limit.
        overhead_tokens: As for `plan_batches`.

    Returns:
        Batches and packings that together hold every index exactly once.
    """
    tokens = np.asarray(lengths, dtype=np.int64)

    def padded(indices: npt.NDArray[np.intp]) -> list[Batch]:
        batches = plan_batches(
            tokens[indices],
            max_batch_tokens=max_batch_tokens,
            max_seq_length=max_seq_length,
            overhead_tokens=overhead_tokens,
        )
        return [Batch(indices[batch.indices], batch.padded_length) for batch in batches]

    def cost(forwards: Sequence[Batch | Packing], overhead: int) -> int:
        return sum(forward.padded_tokens + overhead for forward in forwards)

    # A text without tokens has no place in a row.
    is_short = (tokens > 0) & (tokens <= limits.row_tokens)  # (N,)
    short, long = np.flatnonzero(is_short), np.flatnonzero(~is_short)
    packings = [
        Packing([short[row].tolist() for row in packing.rows], limits.row_tokens)
        for packing in plan_packings(tokens[short], limits)
    ]
    long_batches, all_batches = padded(long), padded(np.arange(len(tokens)))
    of_padded, of_packed = limits.padded_overhead_tokens, limits.overhead_tokens
    if cost(long_batches, of_padded) + cost(packings, of_packed) <= cost(all_batches, of_padded):
        return long_batches, packings
    return all_batches, []


def _cheapest_groups(
    padded: npt.NDArray[np.int64], max_batch_tokens: int, overhead_tokens: int
) -> list[tuple[int, int]]:
    """Return (first, end) of groups of rows that are padded alike; each is cut by the budget.

    Dynamic programming from the shortest rows back to the longest; a group ends where the padded
    length changes, so it takes the square of the distinct lengths (112 for 512 tokens), however
    many rows there are.
    """
    is_first = np.ones(len(padded), dtype=np.bool_)
    is_first[1:] = padded[1:] != padded[:-1]
    starts = np.append(np.flatnonzero(is_first), len(padded))  # (G + 1,)
    least = np.zeros(len(starts), dtype=np.int64)  # cost of all rows from a start on
    following = np.zeros(len(starts), dtype=np.int64)  # the start at which its group ends
    for group in range(len(starts) - 2, -1, -1):
        length = padded[starts[group]]
        rows = starts[group + 1 :] - starts[group]  # (ends,)
        forwards = -(-rows // max(1, max_batch_tokens // length))
        costs = rows * length + forwards * overhead_tokens + least[group + 1 :]
        cheapest = int(costs.argmin())
        least[group], following[group] = costs[cheapest], group + 1 + cheapest
    groups = []
    group = 0
    while group < len(starts) - 1:
        groups.append((int(starts[group]), int(starts[following[group]])))
        group = int(following[group])
    return groups
