"""What only a corpus job can meet, on top of `encoder.errors`; and the exit code of each error.

TwofoldError
├── InvalidInputError         (encoder) settings, rows, files that the caller can correct
│   └── UnreadableSourceError a source file that cannot be read to its end
├── SpaceMismatchError        (encoder)
├── StorageError              (encoder) also a store that lacks what the commit rests on
└── CorpusError               the output folder or the job as a whole
    ├── LayoutMismatchError   the output was written with other columns, chunking or sharding
    ├── SourceChangedError    a source file is not the version that was planned
    ├── ClusterError          Ray cannot run the workers
    ├── UnitFailedError       units that did not finish; the others did
    ├── ConservationError     rows in != rows out + rows rejected
    ├── DuplicateIdError      (id, chunk_index) is not unique
    ├── PruneLimitError       more sources would be retired than `--prune-max` allows
    ├── TooManyRejectedError  more rows were rejected than `--max-rejected` allows
    └── VerificationError     `twofold verify` found something
"""

from __future__ import annotations

from encoder.errors import (
    BackendError,
    InvalidInputError,
    ModelLoadError,
    SpaceMismatchError,
    StorageError,
    TwofoldError,
)

__all__ = [
    "ClusterError",
    "ConservationError",
    "CorpusError",
    "DuplicateIdError",
    "LayoutMismatchError",
    "PruneLimitError",
    "SourceChangedError",
    "StorageError",
    "TooManyRejectedError",
    "UnitFailedError",
    "UnreadableSourceError",
    "VerificationError",
    "exit_code",
]


class UnreadableSourceError(InvalidInputError):
    """A source file cannot be read to its end (truncated, damaged, not of its format)."""


class CorpusError(TwofoldError):
    """The output folder or the job as a whole is not as it must be."""


class LayoutMismatchError(CorpusError):
    """The output was written with other columns, types, chunking or sharding."""


class SourceChangedError(CorpusError):
    """A source file is not, or is no longer, the version that was planned."""


class ClusterError(CorpusError):
    """Ray cannot start the workers, or lost what a run needs."""


class UnitFailedError(CorpusError):
    """Some work units did not finish; the others are committed."""


class ConservationError(CorpusError):
    """Rows in are not rows out plus rows rejected."""


class DuplicateIdError(CorpusError):
    """(id, chunk_index) is not unique over the corpus."""


class PruneLimitError(CorpusError):
    """More sources would be retired than the limit allows."""


class TooManyRejectedError(CorpusError):
    """A run rejected a larger share of its rows than the limit allows; the others are published."""


class VerificationError(CorpusError):
    """`twofold verify` found a difference."""


_EXIT_CODES: tuple[tuple[type[TwofoldError], int], ...] = (
    # The first class that matches counts, so subclasses stand before their bases.
    (SpaceMismatchError, 3),
    (LayoutMismatchError, 3),
    (ModelLoadError, 4),
    (BackendError, 4),
    (UnreadableSourceError, 5),
    (InvalidInputError, 2),
    (UnitFailedError, 6),
    (ConservationError, 7),
    (DuplicateIdError, 7),
    (VerificationError, 8),
    (TooManyRejectedError, 9),
    (StorageError, 5),
    (CorpusError, 5),
    (TwofoldError, 1),
)


def exit_code(error: TwofoldError) -> int:
    """Return the process exit code of an error.

    2 bad settings or input, 3 another space or layout, 4 model or backend, 5 sources, storage or
    the cluster, 6 units that failed, 7 rows lost or doubled, 8 verification, 9 too many rows
    rejected, 1 anything else.
    """
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
