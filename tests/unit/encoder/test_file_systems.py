"""A URI's file system and path: a `::` is a part of a name, unless it is an archive's."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from encoder.file_systems import file_system_of, file_version


@pytest.mark.parametrize("name", ["a", "a::b", "::a", "a b#c%20d::e?"])
def test_a_name_with_two_colons_is_that_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("here")
    for uri in (f"{tmp_path}/{name}", f"file://{tmp_path}/{name}"):
        fs, path = file_system_of(uri)
        assert fs.cat_file(path) == b"here"


def test_a_key_with_two_colons_is_that_key() -> None:
    fs, path = file_system_of("s3://bucket/docs/std::vector.txt", use_listings_cache=False)
    assert (fs.protocol, path) == (("s3", "s3a"), "bucket/docs/std::vector.txt")


def test_two_colons_before_an_archive_name_the_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("folder/a", "b")
    for uri in (f"zip://folder::{tmp_path}/m.zip", f"zip://folder::file://{tmp_path}/m.zip"):
        fs, path = file_system_of(uri)
        assert fs.ls(path, detail=False) == ["folder/a"]


def test_a_chain_of_file_systems_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("here")
    fs, path = file_system_of(f"simplecache::file://{tmp_path}/a")
    assert isinstance(fs, fsspec.get_filesystem_class("simplecache"))
    assert fs.cat_file(path) == b"here"


def test_an_unknown_protocol_is_an_error_with_and_without_them() -> None:
    for name in ("a", "a::b"):
        with pytest.raises(ValueError, match="nowhere"):
            file_system_of(f"nowhere://{name}")


def test_a_file_s_version_is_its_tag_or_its_size_and_time_however_the_store_gives_it():
    seconds = 1_700_000_000.0
    changed = datetime.fromtimestamp(seconds, UTC)
    assert file_version({"ETag": '"abc"', "size": 3, "mtime": seconds}) == "abc"
    assert file_version({"etag": "abc", "size": 3}) == "abc"
    assert file_version({"size": 3, "LastModified": changed}) == "3-1700000000.0"
    assert file_version({"size": 3, "mtime": seconds}) == "3-1700000000.0"
    assert file_version({"size": 3, "created": changed}) == "3-1700000000.0"
    assert file_version({"size": 3}) != file_version({"size": 4})
