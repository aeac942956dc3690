"""Whether the ports are free that an endpoint started here listens on: asked before Ray starts.

Ray would say so after half a minute, with HAProxy's message at the end of a long traceback.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Mapping

from encoder.errors import one_line
from serving.errors import ServeError

__all__ = ["check_ports_free"]

_OF_HAPROXY = {"RAY_SERVE_HAPROXY_STATS_PORT": "8404", "RAY_SERVE_HAPROXY_METRICS_PORT": "9101"}
"""On all interfaces; by the variable that moves them, with Ray's defaults."""
_FALLBACK = ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "8500")
"""Where HAProxy asks while no replica is up: another endpoint there would answer in its place."""
_ALL_INTERFACES = "0.0.0.0"


def check_ports_free(
    host: str, port: int, environment: Mapping[str, str], *, through_haproxy: bool
) -> None:
    """Refuse to start where somebody else listens.

    Args:
        host: Address of the endpoint.
        port: Port of the endpoint.
        environment: Of Ray's processes.
        through_haproxy: Whether HAProxy's own ports are needed, too.

    Raises:
        ServeError: A port is taken or cannot be had; a line for each.
    """
    wanted = [(host, str(port), "--host and --port")]
    if through_haproxy:
        wanted += [
            (_ALL_INTERFACES, environment.get(variable, default), variable)
            for variable, default in _OF_HAPROXY.items()
        ]
        variable, default = _FALLBACK
        wanted.append((host, environment.get(variable, default), variable))
    numbers = Counter(number for _, number, _ in wanted)
    problems = [
        f"expected ports that differ, found {number} for {setting}"
        for _, number, setting in wanted
        if numbers[number] > 1
    ] or [
        f"expected to listen on {address}:{number} ({setting}), found {why}"
        for address, number, setting in wanted
        if (why := _why_not(address, number))
    ]
    if problems:
        raise ServeError("\n".join(problems))


def _why_not(address: str, port: str) -> str:
    """Return why nothing can listen there, and what to do; "" where something can."""
    try:
        kind, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as trial:
            # A connection that has just ended is not in the way of a server.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(where)
    except (OSError, UnicodeError) as error:  # of the net, of the name
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            return "another process there; end it (a second endpoint?), or choose another port"
        return f"{one_line(error)}; choose another"
    return ""
