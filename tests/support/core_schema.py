"""What the API server would say of an object of Kubernetes' own kinds: `kubernetes-validate`."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["KUBERNETES_VERSIONS", "core_problems"]

KUBERNETES_VERSIONS = ("1.31.0", "1.32.0", "1.33.0", "1.34.0", "1.35.0", "1.36.0", "1.37.0")


def core_problems(item: dict[str, Any], version: str) -> list[str]:
    """Return what is wrong with an object; unknown fields are refused."""
    validate = pytest.importorskip("kubernetes_validate")
    try:
        validate.validate(item, version, strict=True)
    except (validate.ValidationError, validate.SchemaNotFoundError) as error:
        return [error.message]
    return []
