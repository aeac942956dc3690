"""A folder whose other files ask for other tokens than tokenizer.json makes is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from encoder.errors import ModelLoadError
from encoder.model.files import read_model_files
from encoder.model.tokenizer_files import check_tokenizer_files
from encoder.tokenizer import Tokenizer

TEXT = "Caf\u00e9 \u6771\u4eac Fox " * 20
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def _change(path: Path, **changes: object) -> None:
    changed = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in changed.items() if value != "gone"}))


def _normalizer(folder: Path, **changes: object) -> dict[str, Any]:
    content = json.loads((folder / "tokenizer.json").read_text())
    return {**content["normalizer"], **changes}


def _has_the_tokens_of_transformers(folder: Path) -> bool:
    ids = Tokenizer(folder / "tokenizer.json", 32).tokenize([TEXT]).input_ids[0].tolist()
    theirs = AutoTokenizer.from_pretrained(folder)(TEXT, truncation=True, max_length=32)
    return bool(ids == theirs["input_ids"])


@pytest.mark.parametrize(
    ("said", "normalizer", "refused"),
    [
        ({}, {}, None),
        ({"do_lower_case": False}, {}, "do_lower_case False.*lowercase True"),
        ({"do_lower_case": False}, {"lowercase": False}, None),
        ({"do_lower_case": "gone"}, {"lowercase": False}, "do_lower_case True by default"),
        ({"strip_accents": False}, {}, "strip_accents False"),
        ({"strip_accents": True}, {}, None),
        ({"tokenize_chinese_chars": False}, {}, "tokenize_chinese_chars False"),
        ({"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}, {}, None),
        ({"do_lower_case": False, "tokenizer_class": "gone"}, {}, "do_lower_case False"),
        ({"truncation_side": "left"}, {}, "truncation_side right, found left"),
    ],
)
def test_a_configuration_that_transformers_follows_must_agree(
    folder: Path, said: dict[str, Any], normalizer: dict[str, Any], refused: str | None
) -> None:
    _change(folder / "tokenizer_config.json", **said)
    _change(folder / "tokenizer.json", normalizer=_normalizer(folder, **normalizer))
    assert _has_the_tokens_of_transformers(folder) is (refused is None)
    if refused is None:
        read_model_files(folder)
        return
    with pytest.raises(ModelLoadError, match=refused):
        read_model_files(folder)


@pytest.mark.parametrize(
    ("said", "tokenizer", "refused"),
    [
        ({}, {"post_processor": None}, r"\[CLS\] and \[SEP\]"),
        ({}, {"truncation": {"direction": "Left"}}, "found left"),
        ({"truncation_side": "right"}, {"truncation": {"direction": "Left"}}, None),
        (
            {"add_prefix_space": True, "tokenizer_class": "RobertaTokenizer"},
            {"normalizer": None, "pre_tokenizer": BYTE_LEVEL},
            "add_prefix_space True",
        ),
    ],
)
def test_what_only_tokenizer_json_says_is_seen_too(
    folder: Path, said: dict[str, Any], tokenizer: dict[str, Any], refused: str | None
) -> None:
    _change(folder / "tokenizer_config.json", **said)
    _change(folder / "tokenizer.json", **tokenizer)
    if refused is None:
        read_model_files(folder)
        return
    with pytest.raises(ModelLoadError, match=refused):
        read_model_files(folder)


BYTE_LEVEL_TRUE = {"normalizer": None, "pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}}
CASED = {"normalizer": {"type": "BertNormalizer", "lowercase": False}}


@pytest.mark.parametrize(
    ("config", "named", "said", "tokenizer", "refused"),
    [
        ({"model_type": "bert"}, "HerbertTokenizerFast", {}, CASED, None),
        ({"tokenizer_class": "HerbertTokenizerFast"}, "gone", {}, CASED, None),
        ({"tokenizer_class": "BertTokenizerFast"}, "gone", {}, CASED, "do_lower_case True"),
        ({"model_type": "modernbert"}, "BertTokenizer", {}, CASED, None),
        ({"model_type": "ernie"}, "gone", {}, CASED, "do_lower_case True by default"),
        ({"model_type": "xlm-roberta"}, "gone", {}, CASED, None),
        ({}, "RobertaTokenizer", {}, BYTE_LEVEL_TRUE, "add_prefix_space False by default"),
        ({"model_type": "roberta"}, "gone", {}, BYTE_LEVEL_TRUE, "add_prefix_space False"),
        ({"model_type": "roberta"}, "gone", {"add_prefix_space": True}, BYTE_LEVEL_TRUE, None),
        ({}, "PreTrainedTokenizerFast", {"add_prefix_space": False}, BYTE_LEVEL_TRUE, None),
    ],
)
def test_what_counts_is_the_class_that_transformers_takes(
    folder: Path,
    config: dict[str, Any],
    named: str,
    said: dict[str, Any],
    tokenizer: dict[str, Any],
    refused: str | None,
) -> None:
    path = folder / "tokenizer_config.json"
    _change(path, do_lower_case="gone", tokenizer_class=named, **said)
    _change(folder / "tokenizer.json", **tokenizer)
    if refused is None:
        check_tokenizer_files(folder, config)
        return
    with pytest.raises(ModelLoadError, match=refused):
        check_tokenizer_files(folder, config)
