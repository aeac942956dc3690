"""Whether a folder's other files contradict `tokenizer.json`.

twofold tokenizes with `tokenizer.json` alone. transformers, and Sentence Transformers with it,
follow `tokenizer_config.json` where its class has an option of its own: the same model would give
texts other tokens, and so other vectors, without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from encoder.errors import ModelLoadError
from encoder.model.folder import TOKENIZER_FILE, read_json_object, read_json_object_if_there

__all__ = ["check_tokenizer_files"]

_TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_CLASSES_WITHOUT_OPTIONS = {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"}
_BERT_TOKENIZED = {"bert", "distilbert", "electra", "mpnet"}
"""`config.model_type` of those that get BERT's class where none is named."""


def check_tokenizer_files(folder: Path, model_type: object) -> None:
    """Check that transformers makes the tokens of a text that `tokenizer.json` makes.

    Args:
        folder: The model's.
        model_type: Of its config.json.

    Raises:
        ModelLoadError: They contradict each other, or the end of a long text is to be kept.
    """
    said = read_json_object_if_there(folder / _TOKENIZER_CONFIG_FILE)
    tokenizer = read_json_object(folder / TOKENIZER_FILE)
    _check_truncation(folder, said, tokenizer)
    name = said.get("tokenizer_class")
    if name in _CLASSES_WITHOUT_OPTIONS or (name is None and model_type not in _BERT_TOKENIZED):
        return
    for option, expected, key, found in [
        *_bert_options(said, tokenizer),
        *_prefix_options(said, tokenizer.get("pre_tokenizer") or {}),
    ]:
        if expected != found:
            default = " by default" if said.get(option) is None else ""
            raise ModelLoadError(
                f"{folder}: {_TOKENIZER_CONFIG_FILE} says {option} {expected}{default}, "
                f"{TOKENIZER_FILE} has {key} {found}; transformers follows the first, twofold the "
                "second: change the one that the model was not trained with"
            )


def _check_truncation(folder: Path, said: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    saved = (tokenizer.get("truncation") or {}).get("direction", "right")
    if str(said.get("truncation_side") or saved).lower() == "left":
        raise ModelLoadError(
            f"{folder}: expected truncation_side right, found left (of a long text the end is "
            f"kept), which twofold does not do; say right in {_TOKENIZER_CONFIG_FILE} to keep the "
            "beginning, or use another model"
        )


_Option = tuple[str, object, str, object]
"""Of the configuration its name and what it asks for, of tokenizer.json the same."""


def _bert_options(said: dict[str, Any], tokenizer: dict[str, Any]) -> list[_Option]:
    normalizer = tokenizer.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        return []
    lower = said.get("do_lower_case", True)
    chinese = said.get("tokenize_chinese_chars", True)
    lowercase, chinese_chars = normalizer.get("lowercase"), normalizer.get("handle_chinese_chars")
    return [
        ("do_lower_case", lower, "lowercase", lowercase),
        ("tokenize_chinese_chars", chinese, "handle_chinese_chars", chinese_chars),
        (
            "strip_accents",
            _if_none(said.get("strip_accents"), lower),
            "strip_accents",
            _if_none(normalizer.get("strip_accents"), lowercase),
        ),
        ("[CLS] and [SEP]", True, "post_processor", bool(tokenizer.get("post_processor"))),
    ]


def _prefix_options(said: dict[str, Any], pre_tokenizer: dict[str, Any]) -> list[_Option]:
    name = "add_prefix_space"
    return [
        (name, said[name], name, step.get(name))
        for step in pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
        if step.get("type") == "ByteLevel" and isinstance(said.get(name), bool)
    ]


def _if_none(value: object, otherwise: object) -> object:
    """Return what BERT's strip_accents means: where it says nothing, accents go with case."""
    return otherwise if value is None else value
