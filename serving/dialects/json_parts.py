"""JSON written a part at a time, so that no call keeps every other thread waiting.

orjson holds the GIL from the beginning of a call to its end: a thread that wrote 2,048 vectors of
1,024 numbers in one call stopped the event loop for all of its 0.1 s, as if it had written them
itself; in parts for 0.01 s. What comes out is what one call would have written, byte for byte.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import orjson

__all__ = ["PART_FLOATS", "dumped", "dumped_in_parts"]

PART_FLOATS = 2**14
"""Floats of a call, about 1 ms; a single vector is not divided."""
_CHARACTERS_PER_FLOAT = 16
"""Text is written about so much faster."""


def dumped(content: object) -> bytes:
    """Return content as JSON; floats are the shortest that read back to the same float32."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def dumped_in_parts(content: object) -> bytes:
    """Return the same bytes, written in parts; other threads have their turn between two."""
    return b"".join(_parts(content))


def _parts(content: object) -> Iterator[bytes]:
    is_large = _size(content) > PART_FLOATS
    if is_large and isinstance(content, dict):
        yield from _object(content)
    elif is_large and isinstance(content, list):
        yield from _array(content)
    else:
        yield _part(content)


def _part(content: object) -> bytes:
    time.sleep(0)  # gives the GIL away now, not after the interpreter's 5 ms
    return dumped(content)


def _object(content: dict[str, Any]) -> Iterator[bytes]:
    before = b"{"
    for name, value in content.items():
        yield before + dumped(name) + b":"
        yield from _parts(value)
        before = b","
    yield b"}"


def _array(content: list[Any]) -> Iterator[bytes]:
    before = b"["
    for group in _groups(content):
        yield before
        if len(group) == 1:
            yield from _parts(group[0])
        else:
            yield _part(group)[1:-1]
        before = b","
    yield b"]"


def _groups(content: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield neighbours that make a part together, or one that is more than a part by itself."""
    group: list[Any] = []
    total = 0
    for element in content:
        size = _size(element)
        if group and total + size > PART_FLOATS:
            yield group
            group, total = [], 0
        group.append(element)
        total += size
    if group:
        yield group


def _size(content: object) -> int:
    """Return how many floats take about as long to write."""
    if isinstance(content, np.ndarray):
        return content.size
    if isinstance(content, str):
        return 1 + len(content) // _CHARACTERS_PER_FLOAT
    if isinstance(content, dict):
        return 1 + sum(map(_size, content.values()))
    if isinstance(content, list):
        return 1 + sum(map(_size, content))
    return 1
