"""Whatever a store's client raises is a StorageError; what says something of the file is not."""

from __future__ import annotations

import io

import pytest
from s3fs.utils import FileExpired

from encoder.errors import StorageError
from pipelines.errors import CorpusError
from pipelines.store_client import RemoteFile, client_errors


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("s3://b/x"),
        FileExistsError("s3://b/x"),
        FileExpired("s3://b/x", "etag"),
        CorpusError("ours"),
    ],
    ids=repr,
)
def test_what_says_something_of_the_file_stays_what_it_is(error):
    with pytest.raises(type(error)) as raised, client_errors("read", "s3://b/x"):
        raise error
    assert raised.value is error


def test_a_defect_on_a_disk_keeps_its_traceback():
    with pytest.raises(TypeError), client_errors("read", "/lake/x"):
        raise TypeError("an int, expected a str")


def test_an_outage_says_nothing_of_the_corpus():
    assert not issubclass(StorageError, CorpusError)


def test_a_remote_file_reads_as_the_clients_own_does():
    inner = io.BytesIO(b"0123456789")
    file = RemoteFile(inner, "s3://b/x")
    assert (file.seekable(), file.readable(), file.writable()) == (True, True, False)
    assert file.read(3) == b"012"
    assert file.tell() == 3
    assert file.seek(-4, io.SEEK_END) == 6
    buffer = bytearray(8)
    assert file.readinto(memoryview(buffer)) == 4
    assert buffer == b"6789\0\0\0\0"
    file.seek(0)
    assert file.read() == b"0123456789"
    file.close()
    assert inner.closed
