"""A JSON line for each request, in a file of its own beside the replica's log.

Through Ray's handlers a line costs the event loop about 100 us: a record, filters, a look at the
file, a flush. Here lines wait in memory and are written together, by whoever calls `flush`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

import orjson

__all__ = ["AccessLog", "open_access_log"]

_RAYS_LOGGER = "ray.serve"
_RAYS_PREFIX = "replica_"
_PREFIX = "access_"


class AccessLog:
    """Keeps lines until they are written. For one event loop.

    Args:
        handler: Writes several lines as one record.
    """

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._lines: list[bytes] = []

    def add(self, line: Mapping[str, object]) -> None:
        """Keep what is known of a request; the time is put before it."""
        self._lines.append(orjson.dumps({"time": datetime.now(UTC), **line}))

    def flush(self) -> None:
        """Write what is kept."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        text = b"\n".join(lines).decode()
        self._handler.handle(logging.makeLogRecord({"msg": text, "levelno": logging.INFO}))

    def close(self) -> None:
        """Write what is kept and close the file."""
        self.flush()
        self._handler.close()


def open_access_log() -> AccessLog:
    """Open the file beside this replica's log, rotated as that is; without one, write to stderr.

    `replica_NAME.log` has its `access_NAME.log`: Ray keeps both with its session's logs.
    """
    rays = _rays_file_handler()
    if rays is None:
        return AccessLog(logging.StreamHandler())
    path = Path(rays.baseFilename)
    name = _PREFIX + path.name.removeprefix(_RAYS_PREFIX)
    return AccessLog(
        RotatingFileHandler(
            path.with_name(name),
            maxBytes=rays.maxBytes,
            backupCount=rays.backupCount,
            encoding="utf-8",
        )
    )


def _rays_file_handler() -> RotatingFileHandler | None:
    """Return what writes this process' Serve log, where Ray has set one up."""
    for handler in logging.getLogger(_RAYS_LOGGER).handlers:
        target = handler.target if isinstance(handler, MemoryHandler) else handler
        if isinstance(target, RotatingFileHandler):
            return target
    return None
