"""A local model folder, checked: its configuration, its weights and its tokenizer.

Weights are safetensors only and are opened just to see that they are whole; no tensor is read, and
no code of the model's own is ever run. What the files say about the embedding space is
`encoder.model.declared_space`'s subject.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from encoder.errors import ModelLoadError
from encoder.model.folder import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    read_json_object,
    read_json_object_if_there,
)
from encoder.model.tokenizer_files import check_tokenizer_files

__all__ = ["ModelFiles", "read_model_files"]

_READ_BYTES = 1 << 20
_UNLIMITED_TOKENS = 1_000_000
"""transformers writes 10**30 into tokenizer_config.json for "no limit"."""
_HIDDEN_SIZE_KEYS = {"distilbert": "dim"}
_POSITIONS_AFTER_PADDING = frozenset(
    # Their position ids start at pad_token_id + 1 (create_position_ids_from_input_ids), so that
    # many position embeddings are never used: 514 are 512 tokens.
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "lilt",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
_DEFAULT_PAD_TOKEN_ID = 1
"""Of the models above; old configurations leave defaults out."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model that can be loaded.

    Attributes:
        folder: Where they are.
        config: The content of config.json.
        weights: The safetensors files, by name: one, or the shards that the index names.
        tokenizer: tokenizer.json.
        stamps: What tells config, tokenizer and weights from other files in their place: size, and
            time of the last change in nanoseconds.
    """

    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    tokenizer: Path
    stamps: tuple[tuple[int, int], ...] = ()

    def check_unchanged(self) -> None:
        """Check that they still are the files that were found.

        Raises:
            ModelLoadError: They are not, so what was read of them may be of two models.
        """
        if _stamps(self.folder / CONFIG_FILE, self.tokenizer, *self.weights) != self.stamps:
            raise ModelLoadError(
                f"{self.folder}: expected files that stay as they are, found others while they "
                "were loaded; load the model again, and give a new version a folder of its own"
            )

    def weights_sha256(self) -> str:
        """Return the digest of the weights file; of the shards' hex digests if there are several.

        Reads every file to its end.
        """
        digests = [_sha256(path) for path in self.weights]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def tokenizer_sha256(self) -> str:
        """Return the digest of tokenizer.json."""
        return _sha256(self.tokenizer)

    @property
    def hidden_size(self) -> int:
        """Length of a token embedding.

        Raises:
            ModelLoadError: config.json does not say it.
        """
        key = _HIDDEN_SIZE_KEYS.get(str(self.config.get("model_type")), "hidden_size")
        size = self.config.get(key)
        if type(size) is not int or size < 1:
            raise ModelLoadError(
                f"{self.folder / CONFIG_FILE}: expected a text encoder with {key}, found "
                f"{key}={size!r} (model_type {self.config.get('model_type')!r}); use another model"
            )
        return size

    @property
    def position_limit(self) -> int | None:
        """Tokens that the position embeddings reach, or None where positions have no table."""
        positions = self.config.get("max_position_embeddings")
        if type(positions) is not int or positions < 1:
            return None
        if self.config.get("model_type") in _POSITIONS_AFTER_PADDING:
            padding = self.config.get("pad_token_id")
            return positions - (padding if type(padding) is int else _DEFAULT_PAD_TOKEN_ID) - 1
        return positions

    @property
    def tokenizer_limit(self) -> int | None:
        """`model_max_length` of tokenizer_config.json, or None where it sets no limit."""
        saved = read_json_object_if_there(self.folder / "tokenizer_config.json")
        limit = saved.get("model_max_length")
        return limit if type(limit) is int and 0 < limit < _UNLIMITED_TOKENS else None


def read_model_files(folder: Path) -> ModelFiles:
    """Find and check the files of a model folder.

    Raises:
        ModelLoadError: Files are missing, damaged or contradict each other, or the model needs
            pickle or code of its own.
    """
    config = _read_config(folder)
    weights = _find_weights(folder)
    for path in weights:
        _check_weights(path)
    tokenizer = folder / TOKENIZER_FILE
    if not tokenizer.is_file():
        raise ModelLoadError(
            f"{folder} has no {TOKENIZER_FILE}, the fast tokenizer's file; make one with "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    check_tokenizer_files(folder, config)
    stamps = _stamps(folder / CONFIG_FILE, tokenizer, *weights)
    return ModelFiles(folder, config, weights, tokenizer, stamps)


def _stamps(*paths: Path) -> tuple[tuple[int, int], ...]:
    # No inodes: those of a mounted bucket may differ from look to look.
    found = (path.stat() for path in paths if path.exists())
    return tuple((status.st_size, status.st_mtime_ns) for status in found)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelLoadError(f"{folder} has no {CONFIG_FILE}: {_why_no_config(folder)}")
    config = read_json_object(path)
    if config.get("auto_map"):
        raise ModelLoadError(
            f"{path} has auto_map: the model brings Python code of its own, which twofold never "
            "runs; use a model whose architecture transformers has"
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelLoadError(
            f"{folder} holds an adapter (adapter_config.json); merge it into its base model with "
            "merge_and_unload() and save that"
        )
    return config


def _why_no_config(folder: Path) -> str:
    if (folder / "modules.json").is_file():
        return (
            "its modules.json keeps the transformer in a subfolder (a Router in front, or a model "
            "saved before 2021); save it with Sentence Transformers as Transformer, then Pooling "
            "(or a Router with one Pooling for each role)"
        )
    return "it is no transformers model; check the path"


def _find_weights(folder: Path) -> tuple[Path, ...]:
    # In the order of transformers: a single file wins over an index.
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    index = folder / WEIGHTS_INDEX_FILE
    if not index.is_file():
        raise ModelLoadError(_why_no_weights(folder))
    weight_map = read_json_object(index).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ModelLoadError(
            f"{index}: expected a weight_map of tensors to files in {folder}, found "
            f"{sorted(map(str, names))[:3]}; copy the model again"
        )
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise ModelLoadError(
            f"{index} names {len(names)} weights files, missing are {missing}; copy the model again"
        )
    return tuple(folder / name for name in sorted(names))


def _why_no_weights(folder: Path) -> str:
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    found = f"only pickle ({', '.join(pickles)})" if pickles else "none"
    return (
        f"{folder}: expected {WEIGHTS_FILE}, found {found}; twofold never reads pickle: on a "
        "machine where you trust the model, convert it with AutoModel.from_pretrained(MODEL)"
        ".save_pretrained(FOLDER), and copy its other files beside the result"
    )


def _check_weights(path: Path) -> None:
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(
            f"{path} is not a whole safetensors file ({error}); the copy is damaged, or is a Git "
            "LFS pointer: copy the model again"
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise ModelLoadError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()
