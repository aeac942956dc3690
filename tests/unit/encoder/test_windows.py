from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from encoder.errors import InvalidInputError
from encoder.tokenizer import Tokenizer
from support.models import minilm_folder

TOKENIZER = Tokenizer(minilm_folder() / "tokenizer.json", 12)
SPECIAL_TOKENS = 2

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=14)
long_texts = st.one_of(
    st.lists(words, max_size=80).map(" ".join),
    st.text(st.sampled_from("abcxyz 東京,.é́\n\x00🙂ﷺ"), max_size=250),
    st.lists(
        st.sampled_from(["internationalization", "a", "x" * 130, "pneumonoultramicroscopic", "b,"]),
        max_size=25,
    ).map(" ".join),
)


@settings(max_examples=300, deadline=None)
@example("a" * 99 + "zq" * 40, 3, "")
@example("   lead and trail   " + "word " * 30, 2, "query: ")
@given(
    text=long_texts, overlap=st.integers(0, 6), prompt=st.sampled_from(["", "query: ", "passage"])
)
def test_windows_fit_cover_and_go_on(text: str, overlap: int, prompt: str) -> None:
    windows = TOKENIZER.windows(text, overlap=overlap, prompt=prompt)

    covered = [False] * len(text)
    for start, end in windows:
        assert 0 <= start < end <= len(text)
        covered[start:end] = [True] * (end - start)
        alone = TOKENIZER.tokenize([text[start:end]], prompt)
        assert not alone.truncated[0] or end == start + 1
    assert all(covered[i] or text[i].isspace() for i in range(len(text)))
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(windows))
    if windows and not TOKENIZER.tokenize([text], prompt).truncated[0]:
        assert windows == [(0, len(text))]


def test_windows_begin_and_end_at_words() -> None:
    text = "internationalization of embeddings " * 12

    windows = TOKENIZER.windows(text, overlap=2)

    assert len(windows) > 3
    for start, end in windows:
        assert set(text[start:end].split()) <= {"internationalization", "of", "embeddings"}


def test_neighbours_share_the_overlap_in_tokens() -> None:
    text = " ".join(f"{chr(97 + i % 26)}" for i in range(60))  # one token a word

    windows = TOKENIZER.windows(text, overlap=4)

    for (_, end), (start, _) in pairwise(windows):
        assert len(text[start:end].split()) == 4
    window_words = [len(text[start:end].split()) for start, end in windows[:-1]]
    assert set(window_words) == {12 - SPECIAL_TOKENS}


def test_without_overlap_every_word_is_in_one_window() -> None:
    text = "some words of a text " * 20

    windows = TOKENIZER.windows(text, overlap=0)

    assert " ".join(text[start:end] for start, end in windows).split() == text.split()


def test_a_word_longer_than_a_window_is_cut() -> None:
    text = "floccinaucinihilipilification" * 3  # one word of 87 characters

    windows = TOKENIZER.windows(text, overlap=2)

    assert len(windows) > 1
    assert windows[0][0] == 0
    assert windows[-1][1] == len(text)


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_white_space_has_no_windows(text: str) -> None:
    assert TOKENIZER.windows(text, overlap=0) == []


@pytest.mark.parametrize("overlap", [10, 11, 500, -1])
def test_an_overlap_that_leaves_no_progress_is_refused(overlap: int) -> None:
    with pytest.raises(InvalidInputError, match=f"0 to 9 tokens .* found {overlap};"):
        TOKENIZER.windows("some text", overlap=overlap)


def test_a_prompt_that_fills_the_window_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="chunk overlap"):
        TOKENIZER.windows("some text", overlap=0, prompt="word " * 10)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        TOKENIZER.windows("a \udc80 b", overlap=0)


def test_a_megabyte_is_looked_at_in_pieces() -> None:
    tokenizer = Tokenizer(minilm_folder() / "tokenizer.json", 512)
    longest = 0
    original = tokenizer._encode

    def encode(text: str) -> object:
        nonlocal longest
        longest = max(longest, len(text))
        return original(text)

    tokenizer._encode = encode  # type: ignore[method-assign,assignment]

    windows = tokenizer.windows("some words of text " * 50_000, overlap=64)

    assert len(windows) > 400
    assert longest < 10_000
