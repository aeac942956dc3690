"""Texts that were tokenized elsewhere: which of their ids are kept."""

from __future__ import annotations

import pytest

from encoder.tokenizer import Tokenizer
from support.models import minilm_folder

CLS, SEP = 101, 102


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(minilm_folder() / "tokenizer.json", 8)


@pytest.mark.parametrize("is_special", [False, True], ids=["bare", "with [CLS] and [SEP]"])
def test_a_long_row_keeps_the_end_that_is_asked_for(tokenizer: Tokenizer, is_special: bool):
    content = list(range(2000, 2010))
    row = [CLS, *content, SEP] if is_special else content

    first = tokenizer.tokenize_ids([row])
    last = tokenizer.tokenize_ids([row], keep_end=True)

    assert first.input_ids[0].tolist() == [CLS, *content[:6], SEP]
    assert last.input_ids[0].tolist() == [CLS, *content[-6:], SEP]
    assert first.truncated.tolist() == last.truncated.tolist() == [True]


def test_the_prompt_is_kept_in_front_of_the_end(tokenizer: Tokenizer):
    content = list(range(2000, 2010))
    prompt = tokenizer.tokenize(["query :"]).input_ids[0][1:-1].tolist()

    found = tokenizer.tokenize_ids([content], "query :", keep_end=True).input_ids[0].tolist()

    assert found == [CLS, *prompt, *content[len(prompt) - 6 :], SEP]


def test_a_row_that_fits_is_the_same_from_either_end(tokenizer: Tokenizer):
    for row in ([], [2000], list(range(2000, 2006))):
        both = [tokenizer.tokenize_ids([row], keep_end=end).input_ids[0] for end in (False, True)]
        assert both[0].tolist() == both[1].tolist() == [CLS, *row, SEP]
