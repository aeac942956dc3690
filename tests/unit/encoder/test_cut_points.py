"""Where a text is cut, the tokens of both sides are those of the whole text."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer

from encoder.cut_points import CutPoints
from support.models import minilm_folder

MINILM = json.loads((minilm_folder() / "tokenizer.json").read_text()) | {
    "truncation": None,
    "padding": None,
}
IDEOGRAPHS = [*map(chr, range(0x3400, 0x4DB6)), *map(chr, range(0x4E00, 0x9FA6))]
PUNCTUATION = [*"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", *"\u3001\u3002\uff01\uff0c\uff1f"]
NORMALIZERS: dict[str, dict[str, Any]] = {
    "uncased": {"lowercase": True, "strip_accents": None, "clean_text": True},
    "cased": {"lowercase": False, "strip_accents": None, "clean_text": True},
    "stripped": {"lowercase": False, "strip_accents": True, "clean_text": False},
}

pieces = st.one_of(
    st.sampled_from([*PUNCTUATION, "[CLS]", "[MA", "SK]", "##", "ab", "漢", "字"]),
    # Marks before and behind what they may stand on, what is thrown away, what NFD takes apart.
    st.sampled_from("\u0301\u0338\u3099\ufe00\u0e33\u200b\u200d\x00\xad\xa0\u2003 \t"),
    st.sampled_from("豈が각ÉǄﬁ\u03a3\u037e🙂👩"),
    st.sampled_from("漢字かなカナ한글\u0430\u0431\u0432À1_a"),
    st.characters(exclude_categories=["Cs"]),
)
texts = st.lists(pieces, max_size=40).map("".join)


def bert(kind: str = "uncased", *, chinese: bool = True, **changed: Any) -> dict[str, Any]:
    own = {"type": "BertNormalizer", "handle_chinese_chars": chinese} | NORMALIZERS[kind]
    return MINILM | {"normalizer": own} | changed


@cache
def library(normalizer: str, chinese: bool) -> FastTokenizer:
    return FastTokenizer.from_str(json.dumps(bert(normalizer, chinese=chinese)))


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [*steps]}


def cuts_of(points: CutPoints, text: str) -> list[int]:
    cuts = [0]
    while cuts[-1] < len(text):
        cuts.append(points.after(text, cuts[-1]))
    return cuts[1:-1]


@pytest.mark.parametrize("chinese", [True, False])
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_the_ids_of_both_sides_of_every_cut_are_those_of_the_whole(normalizer: str, chinese: bool):
    points, fast = CutPoints(bert(normalizer, chinese=chinese)), library(normalizer, chinese)

    @settings(max_examples=300, deadline=None)
    @example("a-b-c")
    @example("漢字漢字")
    @example("漢\u0301字-\u0338a\u0338<\u0338")
    @example("[CLS]x-[MASK]-y")
    @given(texts)
    def check(text: str) -> None:
        cuts = cuts_of(points, text)
        parts = [text, *(part for cut in cuts for part in (text[:cut], text[cut:]))]
        whole, *sides = (
            found.ids for found in fast.encode_batch_fast(parts, add_special_tokens=False)
        )
        for cut, before, behind in zip(cuts, sides[::2], sides[1::2], strict=True):
            assert before + behind == whole, (text[:cut], text[cut:])

    check()


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_every_character_behind_which_a_text_is_cut_is_a_word_by_itself(normalizer: str):
    points, fast = CutPoints(bert(normalizer)), library(normalizer, True)
    characters = [char for char in [*IDEOGRAPHS, *PUNCTUATION] if char not in "[]"]
    around = [f"a{char}\u0301b" for char in characters]

    assert [cuts_of(points, text) for text in around] == [[2]] * len(characters)
    words = [found.word_ids for found in fast.encode_batch(around, add_special_tokens=False)]

    assert [(found[0], found[-1]) for found in words] == [(0, 2)] * len(characters)


def test_behind_no_other_character_is_a_text_without_blanks_cut():
    others = "".join(map(chr, [*range(0x21, 0xD800), *range(0xE000, 0x30000)]))

    cuts = cuts_of(CutPoints(bert(added_tokens=[])), others)

    assert [others[cut - 1] for cut in cuts] == sorted([*IDEOGRAPHS, *PUNCTUATION])


@given(texts, st.integers(1, 5))
def test_a_text_that_is_searched_in_slices_is_cut_as_it_would_be_whole(text: str, size: int):
    whole = cuts_of(CutPoints(MINILM), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encoder.cut_points._SLICE", size)
        assert cuts_of(CutPoints(MINILM), text) == whole


@pytest.mark.parametrize(("content", "expected"), [("a-b", [5, 6, 8]), ("a漢", [2, 4, 8, 16])])
def test_a_character_of_an_added_token_is_no_place_to_cut_at(content: str, expected: list[int]):
    added = MINILM["added_tokens"][0] | {"id": 30522, "content": content, "special": True}
    points = CutPoints(bert(added_tokens=[*MINILM["added_tokens"], added]))

    # Of ideographs one stands for all.
    assert cuts_of(points, "x-a-漢字b+y[MASK]-z") == expected


def test_where_nothing_says_that_a_character_is_a_word_a_text_is_cut_at_blanks_alone():
    text = "漢字-a-b c"

    def cuts(**changed: Any) -> list[int]:
        return cuts_of(CutPoints(bert(**changed)), text)

    assert cuts() == [1, 2, 3, 5, 6]
    assert cuts(chinese=False) == [3, 5, 6]
    for changed in (
        {"normalizer": None},
        {"normalizer": {"type": "NFC"}},
        {"normalizer": {"type": "Sequence", "normalizers": [bert()["normalizer"]]}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "WhitespaceSplit"}},
        {"pre_tokenizer": {"type": "ByteLevel"}},
        {"pre_tokenizer": {"type": "ByteLevel", "use_regex": True}},
        {"pre_tokenizer": {"type": "Metaspace"}},
        {"pre_tokenizer": {"type": "Metaspace", "split": True}},
        {"pre_tokenizer": sequence({"type": "Punctuation"}, {"type": "Metaspace"})},
        {"pre_tokenizer": sequence({"type": "WhitespaceSplit"}, {"type": "Punctuation"})},
    ):
        assert cuts(**changed) == [6], changed
    # One that splits by a pattern of its own (as Qwen's) has tokens that hold blanks.
    pattern = {"type": "Split", "pattern": {"Regex": "a"}}
    for unknown in (
        None,
        pattern,
        {"type": "Metaspace", "split": False},
        {"type": "ByteLevel", "use_regex": False},
        sequence(pattern, {"type": "ByteLevel", "use_regex": False}),
    ):
        assert cuts(pre_tokenizer=unknown) == [], unknown
