"""What a benchmark says when it could not be run."""

from __future__ import annotations

__all__ = ["BenchmarkError"]


class BenchmarkError(RuntimeError):
    """Something that is measured, or that it needs, failed; the message says what was found."""
