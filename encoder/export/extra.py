"""Packages of the extra `export`: there, or one line that says how to get them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from encoder.errors import InvalidInputError

__all__ = ["import_extra"]


def import_extra(module: str) -> ModuleType:
    """Import a module of the extra `export`.

    Args:
        module: Its name, as in `import`.

    Raises:
        InvalidInputError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidInputError(
            f"expected the Python package {module}, found none; pip install 'twofold[export]'"
        ) from error
