"""The versions that sources have by now, asked of their stores when a run ends."""

from __future__ import annotations

import os
from collections.abc import Collection, Set
from concurrent.futures import ThreadPoolExecutor

from pipelines.source.listing import is_local
from pipelines.source.sources import current_version

__all__ = ["versions_now"]

_STORE_THREADS = 16


def versions_now(uris: Set[str], planned: Set[str]) -> dict[str, str]:
    """Look up the version of sources; those that are gone are left out.

    Args:
        uris: The sources.
        planned: Those of the plan: what is one of them under another name is left out, too.
    """
    asked = sorted(uris - _other_names(uris - planned, planned))
    with ThreadPoolExecutor(_STORE_THREADS) as pool:
        found = pool.map(_version_now, asked)
        return {uri: version for uri, version in zip(asked, found, strict=True) if version}


def _other_names(uris: Collection[str], planned: Collection[str]) -> set[str]:
    """Return those URIs of local files that are, through links, planned ones under another name."""
    local = [uri for uri in uris if is_local(uri)]
    real = {os.path.realpath(uri) for uri in planned if is_local(uri)} if local else set()
    return {uri for uri in local if os.path.realpath(uri) in real}


def _version_now(uri: str) -> str | None:
    try:
        return current_version(uri)[0]
    except (FileNotFoundError, NotADirectoryError):
        return None
