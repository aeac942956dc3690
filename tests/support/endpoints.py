"""A live endpoint as a user starts it: `twofold serve` in a process with a Ray of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.ports import free_port
from support.processes import Running, running_module

__all__ = ["Endpoint", "serving"]

READY = "twofold: ready on"


@dataclass(frozen=True)
class Endpoint:
    """A server that answers.

    Attributes:
        url: Its address, without a slash at the end.
        model: The name that requests give.
        running: Its process.
        metrics_port: Where Ray's Prometheus exporter of the node listens.
    """

    url: str
    model: str
    running: Running
    metrics_port: int


@contextmanager
def serving(
    folder: Path,
    *arguments: str,
    model: str,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 180,
) -> Iterator[Endpoint]:
    """Run `twofold serve --model MODEL ARGUMENTS`; on leaving, nothing of it is alive.

    HAProxy's two ports, which it opens on all interfaces, are free ones, so that endpoints of
    several tests do not meet.
    """
    port, metrics_port = free_port(), free_port()
    # Unix sockets allow 107 bytes of path, HAProxy 97, and Ray puts a node id of 56 in between:
    # pytest's own folders are too deep.
    with (
        tempfile.TemporaryDirectory(prefix="twofold-", dir="/tmp") as ray_folder,
        running_module(
            folder,
            "twofold",
            "serve",
            *("--model", model, "--port", str(port), "--metrics-port", str(metrics_port)),
            *arguments,
            environment={
                "RAY_TMPDIR": ray_folder,
                # Each node's HAProxy has a folder in this one; the default is one for the machine.
                "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{ray_folder}/haproxy.cfg",
                "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{ray_folder}/admin.sock",
                "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{ray_folder}/metrics.sock",
                "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": ray_folder,
                "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{ray_folder}/server-state",
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
                "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
                # HAProxy asks it while no replica is up: another endpoint's would answer for ours.
                "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
                "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
                **(environment or {}),
            },
        ) as running,
    ):
        running.wait_for_output(READY, timeout_s)
        yield Endpoint(f"http://127.0.0.1:{port}", model, running, metrics_port)
