"""Free ports of 127.0.0.1 for servers that tests start."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port", "free_ports_with_grpc"]

GRPC_OFFSET = 10_000
"""SeaweedFS listens for gRPC on each HTTP port plus this."""

# Both a port and its gRPC twin stay below Linux's ephemeral range (32768 and up), so no outgoing
# connection of this machine takes one between the choice and the server's bind.
_LOWEST, _HIGHEST = 12_000, 22_000


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports_with_grpc(count: int) -> list[int]:
    """Return ports that are free together with their gRPC twins."""
    candidates = random.SystemRandom().sample(range(_LOWEST, _HIGHEST), 200)
    chosen = [port for port in candidates if _is_free(port) and _is_free(port + GRPC_OFFSET)]
    return chosen[:count]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
