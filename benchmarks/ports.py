"""Free ports of 127.0.0.1, for servers that benchmarks and tests start."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port", "free_ports", "free_ports_with_grpc"]

GRPC_OFFSET = 10_000
"""SeaweedFS listens for gRPC on each HTTP port plus this."""

# Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes one between the
# choice and the server's bind; above what services and Ray (30000) use by default. Ports with a
# gRPC twin end lower, since the twin must stay below that range too.
_LOWEST, _HIGHEST, _HIGHEST_WITH_GRPC = 12_000, 29_000, 22_000
_TRIES = 100
_CANDIDATES = 200


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


def free_ports_with_grpc(count: int) -> list[int]:
    """Return ports that are free together with their gRPC twins."""
    candidates = random.SystemRandom().sample(range(_LOWEST, _HIGHEST_WITH_GRPC), _CANDIDATES)
    chosen = [port for port in candidates if _is_free(port) and _is_free(port + GRPC_OFFSET)]
    return chosen[:count]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
