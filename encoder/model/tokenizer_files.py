"""Whether a folder's other files contradict `tokenizer.json`.

twofold tokenizes with `tokenizer.json` alone. transformers, and Sentence Transformers with it,
follow `tokenizer_config.json` where its class has an option of its own: the same model would give
texts other tokens, and so other vectors, without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoder.errors import ModelLoadError
from encoder.model.folder import TOKENIZER_FILE, read_json_object, read_json_object_if_there

__all__ = ["check_tokenizer_files"]

_TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_CLASSES_WITHOUT_OPTIONS = {"PreTrainedTokenizer", "TokenizersBackend"}
_BERT = "BertTokenizer"
_BERT_CLASSES = {_BERT, "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer"}
"""Those that have BERT's options, by their names without "Fast"."""
_ROBERTA = "RobertaTokenizer"
_BYTE_LEVEL_CLASSES = {_ROBERTA, "DebertaTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer"}
"""Those whose `add_prefix_space` is false where nothing is said."""
_IMPLIED = {
    **dict.fromkeys(("bert", "distilbert", "electra", "ernie", "layoutlm"), _BERT),
    **dict.fromkeys(("megatron-bert", "mpnet", "nomic_bert"), _BERT),
    "roberta": _ROBERTA,
}
"""The class where none is named, by `config.model_type`."""
_WITHOUT_OPTIONS = "modernbert"
"""Whose class is one without options, whatever is named."""


def check_tokenizer_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Check that transformers makes the tokens of a text that `tokenizer.json` makes.

    Args:
        folder: The model's.
        config: Its config.json.

    Raises:
        ModelLoadError: They contradict each other, or the end of a long text is to be kept.
    """
    said = read_json_object_if_there(folder / _TOKENIZER_CONFIG_FILE)
    tokenizer = read_json_object(folder / TOKENIZER_FILE)
    _check_truncation(folder, said, tokenizer)
    kind = _tokenizer_class(said, config)
    options = _bert_options(said, tokenizer) if kind in _BERT_CLASSES else []
    if kind is not None:
        options += _prefix_options(said, kind, tokenizer.get("pre_tokenizer") or {})
    for option, expected, key, found in options:
        if expected != found:
            default = " by default" if said.get(option) is None else ""
            raise ModelLoadError(
                f"{folder}: {_TOKENIZER_CONFIG_FILE} says {option} {expected}{default}, "
                f"{TOKENIZER_FILE} has {key} {found}; transformers follows the first, twofold the "
                "second: change the one that the model was not trained with"
            )


def _tokenizer_class(said: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Return the class that transformers takes, without "Fast"; None for one without options."""
    kind = config.get("model_type")
    named = said.get("tokenizer_class") or config.get("tokenizer_class") or _IMPLIED.get(str(kind))
    name = str(named).removesuffix("Fast")
    if named is None or kind == _WITHOUT_OPTIONS or name in _CLASSES_WITHOUT_OPTIONS:
        return None
    return name


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


def _prefix_options(
    said: dict[str, Any], kind: str, pre_tokenizer: dict[str, Any]
) -> list[_Option]:
    name = "add_prefix_space"
    expected = said.get(name, False if kind in _BYTE_LEVEL_CLASSES else None)
    return [
        (name, expected, name, step.get(name))
        for step in pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
        if step.get("type") == "ByteLevel" and isinstance(expected, bool)
    ]


def _if_none(value: object, otherwise: object) -> object:
    """Return what BERT's strip_accents means: where it says nothing, accents go with case."""
    return otherwise if value is None else value
