"""The model: text in, vectors out. Knows neither Ray nor HTTP.

Importing this package is cheap: torch and transformers are imported when a model is loaded, and
the names below are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoder.encoder import Encoded, EncodedVectors, Encoder, load_encoder
    from encoder.errors import (
        BackendError,
        InvalidInputError,
        ModelLoadError,
        NonFiniteVectorsError,
        SpaceMismatchError,
        TwofoldError,
    )
    from encoder.settings import BackendName, DtypeName, EncoderSettings
    from encoder.space import EmbeddingSpace, Pooling, Role, RoleEncoding
    from encoder.tokenizer import Tokenized

__all__ = [
    "BackendError",
    "BackendName",
    "DtypeName",
    "EmbeddingSpace",
    "Encoded",
    "EncodedVectors",
    "Encoder",
    "EncoderSettings",
    "InvalidInputError",
    "ModelLoadError",
    "NonFiniteVectorsError",
    "Pooling",
    "Role",
    "RoleEncoding",
    "SpaceMismatchError",
    "Tokenized",
    "TwofoldError",
    "load_encoder",
]

_MODULES = {
    "encoder.encoder": ("Encoded", "EncodedVectors", "Encoder", "load_encoder"),
    "encoder.errors": (
        "BackendError",
        "InvalidInputError",
        "ModelLoadError",
        "NonFiniteVectorsError",
        "SpaceMismatchError",
        "TwofoldError",
    ),
    "encoder.settings": ("BackendName", "DtypeName", "EncoderSettings"),
    "encoder.space": ("EmbeddingSpace", "Pooling", "Role", "RoleEncoding"),
    "encoder.tokenizer": ("Tokenized",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Import a public name's module when the name is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
