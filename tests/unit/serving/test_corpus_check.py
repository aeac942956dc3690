"""A corpus that cannot be read is told from one that is not there."""

from __future__ import annotations

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from encoder.errors import InvalidInputError, StorageError
from serving.corpus_check import check_corpus_space
from serving.errors import exit_code
from support.fake_encoder import SPACE


@pytest.mark.parametrize(
    "error",
    [PermissionError("The provided token has expired."), Exception("Service Unavailable, 503")],
    ids=repr,
)
def test_a_store_that_does_not_give_the_corpus_ends_the_command_as_a_job_does(monkeypatch, error):
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(StorageError, match=f"{error}.*; check .* the credentials or the role") as e:
        check_corpus_space("memory://lake/vectors", SPACE, provenance={})
    assert exit_code(e.value) == 5


def test_a_corpus_that_is_not_there_is_a_wrong_setting():
    with pytest.raises(InvalidInputError, match=r"is no corpus: .* no such folder or bucket") as e:
        check_corpus_space("memory://nowhere/vectors", SPACE, provenance={})
    assert exit_code(e.value) == 2
