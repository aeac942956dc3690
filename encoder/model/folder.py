"""The names of a model folder's files, and how its JSON is read.

A model is copied (from the hub, a bucket, into a mirror) by these names only: safetensors weights,
the tokenizer, the configuration and the Sentence Transformers files; never pickle, never code.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import metadata_load
from yaml import YAMLError

from encoder.errors import ModelLoadError

__all__ = [
    "CONFIG_FILE",
    "INT8_FILES",
    "INT8_GRAPH_FILE",
    "INT8_RECORD_FILE",
    "INT8_WEIGHTS_FILE",
    "MODEL_FILE_PATTERNS",
    "README_FILE",
    "SPACE_FILE",
    "TOKENIZER_FILE",
    "WEIGHTS_FILE",
    "WEIGHTS_INDEX_FILE",
    "is_model_file",
    "read_json",
    "read_json_object",
    "read_json_object_if_there",
    "readme_metadata",
]

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
SPACE_FILE = "embedding_space.json"
README_FILE = "README.md"
INT8_GRAPH_FILE = "openvino_int8.xml"
INT8_WEIGHTS_FILE = "openvino_int8.bin"
INT8_RECORD_FILE = "openvino_int8.json"
INT8_FILES = (INT8_WEIGHTS_FILE, INT8_GRAPH_FILE, INT8_RECORD_FILE)
"""What `twofold quantize` adds, in the order of writing: who has the last has them all."""

MODEL_FILE_PATTERNS = (
    CONFIG_FILE,
    WEIGHTS_FILE,
    "model-*.safetensors",
    WEIGHTS_INDEX_FILE,
    SPACE_FILE,
    *INT8_FILES,
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    # One folder for each Sentence Transformers module, and one for each route of a Router.
    "[0-9]*_*/config.json",
    "[0-9]*_*/router_config.json",
    "router_config.json",
    # Not used: copied so that its presence can be refused.
    "adapter_config.json",
    README_FILE,
    "LICENSE*",
)
"""Shell patterns over paths relative to the folder; as on the hub, `*` also matches `/`."""


def is_model_file(relative: str) -> bool:
    """Return whether a file, by its path relative to the model folder, belongs to the model."""
    if ".." in PurePosixPath(relative).parts:
        # An object key may hold "..", which would leave the folder that it is copied into.
        return False
    return any(fnmatchcase(relative, pattern) for pattern in MODEL_FILE_PATTERNS)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelLoadError: The file is missing, unreadable, or not a JSON object.
    """
    return _as_json_object(read_json(path), str(path))


def read_json_object_if_there(path: Path) -> dict[str, Any]:
    """Read a JSON object, or return an empty one where there is no such file."""
    return read_json_object(path) if path.is_file() else {}


def read_json(path: Path) -> object:
    """Read a JSON value.

    Raises:
        ModelLoadError: The file is missing, unreadable, or not JSON.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelLoadError(f"cannot read {path}: {error.strerror}") from error
    return _parse_json(content, str(path))


def _parse_json(content: bytes, origin: str) -> object:
    """Parse a JSON value that was read from `origin`.

    Raises:
        ModelLoadError: It is not JSON.
    """
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(
            f"{origin} is not valid JSON ({error}); the copy is damaged: copy the model again"
        ) from error
    return value


def _as_json_object(value: object, origin: str) -> dict[str, Any]:
    """Return the value, which was read from `origin`, as the object that it must be.

    Raises:
        ModelLoadError: It is a list, a number or a text.
    """
    if not isinstance(value, dict):
        raise ModelLoadError(
            f"{origin} must hold a JSON object, found {type(value).__name__}; copy the model again"
        )
    return value


def readme_metadata(folder: Path, key: str) -> dict[str, Any]:
    """Return what stands in front of a folder's README; empty where nothing readable has the key.

    It is made for people and for the hub: no model is refused because of it. A card with its
    results of mteb takes a quarter of a second to parse, so it is first looked at for the key.
    """
    path = folder / README_FILE
    try:
        if key.encode() not in path.read_bytes():
            return {}
        return metadata_load(path) or {}
    except (OSError, ValueError, RecursionError, YAMLError):
        return {}
