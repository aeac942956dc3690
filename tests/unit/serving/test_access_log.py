"""Lines of requests are written together, into a file beside the replica's log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

import pytest

from serving.access_log import open_access_log


@pytest.fixture
def replica_log(tmp_path: Path) -> Iterator[Path]:
    """As Ray sets it up for a replica."""
    path = tmp_path / "replica_twofold_QueryEndpoint_x1.log"
    file = RotatingFileHandler(path, maxBytes=2_000, backupCount=5)
    handler = MemoryHandler(1, target=file)
    logger = logging.getLogger("ray.serve")
    before, logger.handlers = logger.handlers, [handler]
    yield path
    logger.handlers = before
    file.close()


def lines_of(*files: Path) -> list[dict[str, object]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_lines_stand_in_a_file_of_their_own_once_they_are_flushed(replica_log: Path):
    access_log = open_access_log()
    file = replica_log.with_name("access_twofold_QueryEndpoint_x1.log")

    for number in range(3):
        access_log.add({"number": number, "error": "two\nlines, Grüße"})
    assert file.read_text() == ""
    access_log.flush()
    written_by_then = file.read_text()
    access_log.flush()
    access_log.close()

    assert file.read_text() == written_by_then
    lines = lines_of(file)
    assert [line["number"] for line in lines] == [0, 1, 2]
    assert lines[0]["error"] == "two\nlines, Grüße"
    written = datetime.fromisoformat(str(lines[0]["time"]))
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
    assert replica_log.read_text() == ""


def test_the_file_is_rotated_as_the_replicas_is_and_no_line_is_lost(replica_log: Path):
    access_log = open_access_log()

    for number in range(60):
        access_log.add({"number": number})
        if number % 4 == 3:
            access_log.flush()
    access_log.close()

    file = replica_log.with_name("access_twofold_QueryEndpoint_x1.log")
    rotated = sorted(file.parent.glob(f"{file.name}.*"), reverse=True)
    assert len(rotated) >= 1
    assert all(each.stat().st_size <= 2_000 for each in (*rotated, file))
    assert [line["number"] for line in lines_of(*rotated, file)] == list(range(60))


def test_without_a_log_of_ray_lines_go_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(logging.getLogger("ray.serve"), "handlers", [])
    access_log = open_access_log()

    access_log.add({"number": 1})
    access_log.flush()

    assert json.loads(capsys.readouterr().err)["number"] == 1
