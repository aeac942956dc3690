"""Packages that come with an extra: there, or one line that says how to get them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from encoder.errors import InvalidInputError

__all__ = ["import_extra", "require_extra"]


def require_extra(extra: str, *modules: str) -> None:
    """Check that modules can be imported; nothing is imported.

    Args:
        extra: What brings them, as in `pip install 'twofold[evaluate]'`.
        *modules: Top-level names, as in `import`.

    Raises:
        InvalidInputError: One is not installed.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise InvalidInputError(
            f"expected the Python package {' and '.join(missing)}, found none; "
            f"pip install 'twofold[{extra}]'"
        )


def import_extra(extra: str, module: str) -> ModuleType:
    """Import a module that an extra brings.

    Raises:
        InvalidInputError: It is not installed.
    """
    require_extra(extra, module)
    return import_module(module)
