"""Packages of the extra `evaluate`: there, or one line that says how to get them."""

from __future__ import annotations

from importlib.util import find_spec

from encoder.errors import InvalidInputError

__all__ = ["require_extra"]


def require_extra(*modules: str) -> None:
    """Check that modules of the extra `evaluate` can be imported; nothing is imported.

    Args:
        *modules: Top-level names, as in `import`.

    Raises:
        InvalidInputError: One is not installed.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise InvalidInputError(
            f"expected the Python package {' and '.join(missing)}, found none; "
            "pip install 'twofold[evaluate]'"
        )
