"""The words for what differs between two spaces or layouts: each field with both of its values."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["shown_differences"]


def shown_differences(
    differences: Mapping[str, tuple[object, object]], first: str = "corpus", second: str = "here"
) -> str:
    """Return the fields that differ on one line.

    Args:
        differences: Name -> both values, plain as JSON holds them.
        first: Whose the first value is, in a word.
        second: Whose the second is.
    """
    return "; ".join(
        f"{name}: {first} {json.dumps(one)}, {second} {json.dumps(other)}"
        for name, (one, other) in differences.items()
    )
