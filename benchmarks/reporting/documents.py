"""Tables in documents: between two markers stands what the lines say, and nothing else.

<!-- measured: encoder -->
| ... |
<!-- end measured: encoder -->

A name may be followed by a file of another machine (`measured: encoder 2026-11-28-encode-x`): the
same table of other lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["fill", "names_in"]

_NAME = r"(?P<name>[a-z-]+(?: [\w.-]+)?)"

_BLOCK = re.compile(
    rf"(?P<start><!-- measured: {_NAME} -->\n)(?P<body>.*?)"
    r"(?P<end><!-- end measured: (?P=name) -->)",
    re.DOTALL,
)
_MARKER = re.compile(rf"<!-- (?:end )?measured: {_NAME} -->")


def names_in(text: str) -> list[str]:
    """Return the names of the tables that a document has a place for.

    Raises:
        ValueError: A marker lacks its other one.
    """
    names = [block["name"] for block in _BLOCK.finditer(text)]
    markers = [marker["name"] for marker in _MARKER.finditer(text)]
    if sorted(markers) != sorted(names * 2):
        raise ValueError(
            "expected each <!-- measured: NAME --> with its <!-- end measured: NAME -->, found "
            f"markers {markers}"
        )
    return names


def fill(text: str, tables: Mapping[str, str]) -> str:
    """Return a document with its tables put between their markers.

    Args:
        text: The document.
        tables: Markdown by name.

    Raises:
        ValueError: It has a place for a table that is not there.
    """
    missing = [name for name in names_in(text) if not tables.get(name)]
    if missing:
        raise ValueError(
            f"expected measurements for {', '.join(missing)}, found none; known tables with lines: "
            f"{', '.join(name for name, table in tables.items() if table) or 'none'}"
        )
    return _BLOCK.sub(
        lambda block: f"{block['start']}{tables[block['name']]}\n{block['end']}", text
    )
