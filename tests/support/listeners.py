"""On which addresses processes listen, as the kernel says. Linux only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["Listener", "listeners"]

_LISTEN = "0A"
_WORD_BYTES = 4


class Listener(NamedTuple):
    """A TCP socket that takes connections."""

    address: str
    port: int


def listeners(pids: Iterable[int]) -> set[Listener]:
    """Return the TCP sockets on which these processes listen."""
    held = {inode for pid in pids for inode in _inodes(pid)}
    found = set()
    for table in ("tcp", "tcp6"):
        # proc_net_tcp(5): local address, remote address, state, ..., inode
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in held:
                address, _, port = fields[1].partition(":")
                found.add(Listener(_address(address), int(port, 16)))
    return found


def _inodes(pid: int) -> set[str]:
    found = set()
    # A process may end while it is looked at.
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found |= set(re.findall(r"^socket:\[(\d+)\]$", str(link.readlink())))
    return found


def _address(digits: str) -> str:
    """Read an address as the kernel writes it: words of 4 bytes, each of this machine's order."""
    raw = bytes.fromhex(digits)
    words = [raw[i : i + _WORD_BYTES][::-1] for i in range(0, len(raw), _WORD_BYTES)]
    return str(ipaddress.ip_address(b"".join(words)))
