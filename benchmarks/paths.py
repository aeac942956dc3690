"""Where this repository lies on this disk."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DATA", "DEBIAN", "REPOSITORY"]

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY.parent / "shared/data"
"""Data sets, where they lie beside the repository."""
DEBIAN = DATA / "debian"
"""Package descriptions."""
