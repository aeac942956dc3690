"""Free ports of 127.0.0.1."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port", "free_ports"]

# Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes one between the
# choice and the server's bind; above what services and Ray (30000) use by default.
_LOWEST, _HIGHEST = 12_000, 29_000
_TRIES = 100


def free_port() -> int:
    """Return a port that nothing listens on now."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Return the first of as many ports in a row that nothing listens on now.

    Raises:
        RuntimeError: None were found.
    """
    chance = random.SystemRandom()
    for _ in range(_TRIES):
        first = chance.randrange(_LOWEST, _HIGHEST - count)
        if all(map(_is_free, range(first, first + count))):
            return first
    raise RuntimeError(f"expected {count} free ports between {_LOWEST} and {_HIGHEST}, found none")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
