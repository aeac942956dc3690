"""Every error has the exit code of its kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from encoder.errors import (
    BackendError,
    InvalidInputError,
    ModelLoadError,
    NewerFormatError,
    NonFiniteVectorsError,
    SpaceMismatchError,
    TwofoldError,
)
from pipelines import errors
from pipelines.errors import exit_code

EXPECTED = {
    TwofoldError: 1,
    InvalidInputError: 2,
    SpaceMismatchError: 3,
    NewerFormatError: 3,
    errors.LayoutMismatchError: 3,
    ModelLoadError: 4,
    BackendError: 4,
    NonFiniteVectorsError: 4,
    errors.UnreadableSourceError: 5,
    errors.CorpusError: 5,
    errors.SourceChangedError: 5,
    errors.StorageError: 5,
    errors.ClusterError: 5,
    errors.PruneLimitError: 5,
    errors.UnitFailedError: 6,
    errors.ConservationError: 7,
    errors.DuplicateIdError: 7,
    errors.VerificationError: 8,
    errors.TooManyRejectedError: 9,
}


def subclasses(kind: type[TwofoldError]) -> Iterator[type[TwofoldError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


@pytest.mark.parametrize(("kind", "code"), EXPECTED.items(), ids=lambda value: str(value))
def test_an_error_ends_the_process_with_its_own_code(kind: type[TwofoldError], code: int):
    assert exit_code(kind.__new__(kind)) == code


def test_no_error_is_missing_from_the_table_above():
    ours = {kind for kind in subclasses(TwofoldError) if kind.__module__.startswith(("enc", "pip"))}
    assert ours == set(EXPECTED)
