"""Local files appear whole, and what a killed writer leaves does not stay for ever."""

from __future__ import annotations

import io
import os
import stat
import time
from pathlib import Path

import pytest

from encoder.whole_file import LEFTOVER_AGE_S, create_whole, delete_leftovers, replace_whole


class Killed(BaseException):
    pass


@pytest.fixture
def leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a writer leaves that is killed before its file has its name."""

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", kill)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            create_whole(tmp_path / "a.parquet", io.BytesIO(b"whole"))
    (path,) = tmp_path.iterdir()
    return path


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_file_is_created_once_and_replaced_as_often_as_wanted(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folders" / "a"
    assert create_whole(target, io.BytesIO(b"first"))
    assert not create_whole(target, io.BytesIO(b"second"))
    assert target.read_bytes() == b"first"
    replace_whole(target, io.BytesIO(b"third"))
    assert target.read_bytes() == b"third"
    assert list(target.parent.iterdir()) == [target]


def test_content_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a"
    synced: list[tuple[str, bytes | None]] = []
    descriptors = []

    def spied(descriptor: int) -> None:
        descriptors.append(descriptor)
        found = os.fstat(descriptor)
        what = "the folder" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} bytes"
        synced.append((what, target.read_bytes() if target.exists() else None))

    monkeypatch.setattr(os, "fsync", spied)
    create_whole(target, io.BytesIO(b"first"))
    replace_whole(target, io.BytesIO(b"second"))
    assert synced == [
        ("5 bytes", None),
        ("the folder", b"first"),
        ("6 bytes", b"first"),
        ("the folder", b"second"),
    ]
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_what_a_killed_writer_left_is_deleted_a_day_later(leftover: Path) -> None:
    delete_leftovers(leftover.parent)
    assert leftover.exists(), "its writer may still be at work"
    age(leftover, LEFTOVER_AGE_S + 1)
    delete_leftovers(leftover.parent)
    assert not leftover.exists()


def test_nothing_else_is_deleted_however_old_it_is(tmp_path: Path) -> None:
    for name in ("a.parquet", ".hidden", ".swap.tmp", "b.tmp", f".{'a' * 32}.tmp"):
        (tmp_path / name).touch()
        age(tmp_path / name, 10 * LEFTOVER_AGE_S)
    before = sorted(tmp_path.iterdir())
    delete_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_is_not_there_holds_no_leftovers(tmp_path: Path) -> None:
    delete_leftovers(tmp_path / "nowhere")
