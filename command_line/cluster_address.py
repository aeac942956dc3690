"""Whether somebody listens at a Ray cluster's address: where nobody does, Ray ends the process."""

from __future__ import annotations

import socket

from encoder.errors import one_line

__all__ = ["why_unreachable"]


def why_unreachable(address: str, *, within_s: float) -> str:
    """Return why nobody can be reached at HOST:PORT, in one line; "" where somebody can.

    Args:
        address: As Ray reads it; of one that is no host and port ("auto", ray://...) Ray says what
            is wrong.
        within_s: Seconds to wait.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdecimal():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), within_s).close()
    except (OSError, OverflowError, UnicodeError) as error:  # of the net, the port, the name
        return one_line(error)
    return ""
