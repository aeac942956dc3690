from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from encoder.errors import InvalidInputError, ModelLoadError
from encoder.tokenizer import Tokenized, Tokenizer
from support.models import minilm_folder

MINILM = minilm_folder() / "tokenizer.json"
CORPUS = [
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Über naïve café; 東京 1234 foo_bar(x) -> None",
    "    indented\n\ttext\r\nwith   runs of   white space",
]
WITHOUT_BLANKS = ["漢字", "a-", "aGVsbG8+d29ybGQ/", "東京タワー、"]

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
texts = st.one_of(
    st.lists(words, max_size=60).map(" ".join),
    st.text(st.sampled_from("ab .,\n\t東京é́\x00\xa0\u2003🙂"), max_size=300),
    st.text(st.sampled_from("ab-_.漢字かな\u3002\u0301\u200b[]"), max_size=300),
)
"""Short words make texts that are cut; odd characters test the boundary."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@cache
def card_tokenizer(max_seq_length: int) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MINILM.parent, model_max_length=max_seq_length)


def minilm(max_seq_length: int) -> Tokenizer:
    return Tokenizer(MINILM, max_seq_length)


def byte_level(folder: Path) -> Path:
    """A RoBERTa-like tokenizer."""
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    fast.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<end of text>")])
    return _saved(fast, folder / "byte_level.json")


def sentencepiece(folder: Path) -> Path:
    """An XLM-R-like tokenizer."""
    fast = FastTokenizer(models.Unigram())
    fast.normalizer = normalizers.NFKC()
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    fast.train_from_iterator(CORPUS, trainer)
    return _saved(fast, folder / "sentencepiece.json")


def _saved(fast: FastTokenizer, path: Path) -> Path:
    fast.save(str(path))
    return path


@pytest.fixture(scope="module")
def tokenizer_files(folder: Path) -> dict[str, Path]:
    return {
        "wordpiece": MINILM,
        "byte level": byte_level(folder),
        "sentencepiece": sentencepiece(folder),
    }


@settings(max_examples=150, deadline=None)
@given(batch=st.lists(texts, max_size=6), prompt=st.sampled_from(["", "query: "]))
def test_ids_equal_those_of_the_model_cards_tokenizer(batch: list[str], prompt: str) -> None:
    card = card_tokenizer(16)

    found = minilm(16).tokenize(batch, prompt)

    expected = [card(prompt + text, truncation=True)["input_ids"] for text in batch]
    assert [ids.tolist() for ids in found.input_ids] == expected
    assert found.n_tokens.tolist() == [len(ids) for ids in expected]
    whole = [len(card(prompt + text)["input_ids"]) for text in batch]
    assert found.truncated.tolist() == [length > 16 for length in whole]


@pytest.mark.parametrize("kind", ["wordpiece", "byte level", "sentencepiece"])
def test_cutting_a_text_before_tokenizing_changes_none_of_its_tokens(
    tokenizer_files: dict[str, Path], kind: str
) -> None:
    path = tokenizer_files[kind]
    tokenizer = Tokenizer(path, 6)
    # What the library gives for the whole text, cut by itself.
    whole = FastTokenizer.from_file(str(path))
    whole.no_padding()
    whole.enable_truncation(6)
    cuts = []
    original = tokenizer._cuts.after

    def spied(text: str, characters: int) -> int:
        end = original(text, characters)
        cuts.append(end < len(text))
        return end

    tokenizer._cuts.after = spied  # type: ignore[method-assign]

    @settings(max_examples=150, deadline=None)
    @example("a b " * 200)
    @example("word " * 20 + "<end of text> " * 40)
    @example("x" * 500 + " y")
    @example(" " * 400 + "late words " * 30)
    @given(texts.map(lambda text: text * 4))
    def check(text: str) -> None:
        found = tokenizer.tokenize([text])
        assert found.input_ids[0].tolist() == whole.encode(text).ids

    check()
    assert any(cuts), "no text was cut: the test shows nothing"


@pytest.mark.parametrize("part", ["some words of text ", *WITHOUT_BLANKS])
def test_a_text_of_a_megabyte_is_not_tokenized_whole(part: str) -> None:
    tokenizer = minilm(512)
    longest = 0

    class Spy:
        def encode_batch_fast(self, batch: list[str], **options: bool) -> object:
            nonlocal longest
            longest = max(longest, *map(len, batch))
            return real.encode_batch_fast(batch, **options)

    real, tokenizer._fast = tokenizer._fast, Spy()  # type: ignore[assignment]

    found = tokenizer.tokenize([part * 60_000])

    assert found.truncated.tolist() == [True]
    assert found.n_tokens.tolist() == [512]
    assert longest < 10_000


def test_many_texts_go_to_the_library_in_groups_of_bounded_size() -> None:
    tokenizer = minilm(512)
    groups = []

    class Spy:
        def encode_batch_fast(self, batch: list[str], **options: bool) -> object:
            groups.append(sum(map(len, batch)))
            return real.encode_batch_fast(batch, **options)

    real, tokenizer._fast = tokenizer._fast, Spy()  # type: ignore[assignment]

    found = tokenizer.tokenize(["word " * 800] * 300)

    assert len(found) == 300
    assert len(groups) > 1
    assert max(groups) <= 512 * 1024


def test_the_truncation_and_padding_stored_in_the_file_are_ignored() -> None:
    stored = json.loads(MINILM.read_text())
    assert stored["truncation"]["max_length"] == 128
    assert stored["padding"]["strategy"] == {"Fixed": 128}

    found = minilm(512).tokenize(["one", "word " * 300])

    assert found.n_tokens.tolist() == [3, 302]
    assert found.truncated.tolist() == [False, False]


def test_a_text_that_fits_exactly_is_not_truncated_and_one_more_token_is() -> None:
    found = minilm(10).tokenize(["word " * 8, "word " * 9])

    assert found.n_tokens.tolist() == [10, 10]
    assert found.truncated.tolist() == [False, True]


def test_no_texts_give_no_rows() -> None:
    found = minilm(10).tokenize([])

    assert len(found) == 0
    assert found.n_tokens.shape == (0,)


@pytest.mark.parametrize("place", [0, 50_000])
def test_a_lone_surrogate_is_refused_naming_the_index(place: int) -> None:
    text = "a " * place + "\ud800"

    with pytest.raises(InvalidInputError, match=f"at index 1, found a lone .* {2 * place};"):
        minilm(10).tokenize(["fine", text, "fine"])


def test_what_is_not_a_string_is_refused_naming_the_index() -> None:
    with pytest.raises(InvalidInputError, match="string at index 1, found NoneType"):
        minilm(10).tokenize(["fine", None])  # type: ignore[list-item]


def test_rows_can_be_taken_and_joined() -> None:
    tokenizer = minilm(8)
    tokenized = tokenizer.tokenize(["one", "two words", "many " * 20])

    picked = tokenized.take([2, 0])
    joined = Tokenized.join([picked, tokenized])

    assert picked.truncated.tolist() == [True, False]
    assert joined.n_tokens.tolist() == [8, 3, 3, 4, 8]
    assert np.array_equal(joined.input_ids[1], tokenized.input_ids[0])
    assert Tokenized.join([picked]) is picked
    assert len(Tokenized.join([])) == 0


def test_a_damaged_tokenizer_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{")

    with pytest.raises(ModelLoadError, match=r"tokenizer in .*tokenizer\.json, found"):
        Tokenizer(path, 10)


def test_a_length_that_leaves_no_room_for_text_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="max_seq_length 2 leaves no room beside the 2"):
        minilm(2)


@pytest.mark.parametrize("prompt", ["", "a: "])
@pytest.mark.parametrize("kind", ["wordpiece", "byte level", "sentencepiece"])
def test_the_end_that_is_kept_is_the_end_of_the_whole_texts_tokens(
    tokenizer_files: dict[str, Path], kind: str, prompt: str
) -> None:
    path = tokenizer_files[kind]
    tokenizer = Tokenizer(path, 12)
    whole = FastTokenizer.from_file(str(path))
    whole.no_padding()
    whole.no_truncation()
    around = len(tokenizer._before), len(tokenizer._after)
    room = 12 - sum(around)
    given_parts = []
    original = tokenizer._encode
    tokenizer._encode = lambda text: given_parts.append(text) or original(text)  # type: ignore[method-assign, func-returns-value]
    cuts = []

    def ids_of(text: str) -> list[int]:
        return whole.encode(text, add_special_tokens=False).ids

    @settings(max_examples=150, deadline=None)
    @example("a b " * 200)
    @example("word " * 20 + "<end of text> " * 40)
    @example("<end of text> " * 40 + "last")
    @example("x" * 500 + " y")
    @example("x " + "y" * 500)
    @example("early words " * 30 + " " * 400)
    @given(texts.map(lambda text: text * 4))
    def check(text: str) -> None:
        given_parts.clear()
        found = tokenizer.tokenize([text], prompt, keep_end=True)
        content = ids_of(prompt + text)
        is_cut = len(content) > room
        if is_cut:
            front, own = ids_of(prompt) if prompt else [], ids_of(text)
            content = front + own[len(own) - (room - len(front)) :]
            cuts.append(bool(given_parts) and len(given_parts[-1]) < len(text))
        ids = found.input_ids[0].tolist()
        assert ids[around[0] : len(ids) - around[1]] == content
        assert ids[: around[0]] == tokenizer._before
        assert ids[len(ids) - around[1] :] == tokenizer._after
        assert found.truncated.tolist() == [is_cut]
        assert found.n_tokens.tolist() == [len(ids)]

    check()
    assert any(cuts), "no text was cut before it was tokenized: the test shows nothing"


def test_the_end_of_each_text_that_is_too_long_is_kept_and_the_others_stay_whole() -> None:
    tokenizer = minilm(6)

    found = tokenizer.tokenize(["a b", "a b c d e f", "c"], keep_end=True)

    assert found.truncated.tolist() == [False, True, False]
    whole = minilm(16).tokenize(["a b", "c d e f", "c"])
    assert [ids.tolist() for ids in found.input_ids] == [ids.tolist() for ids in whole.input_ids]


def test_the_prompt_stays_where_the_end_is_kept() -> None:
    found = minilm(8).tokenize(["a b c d e f g h"], "query: ", keep_end=True)

    expected = minilm(16).tokenize(["e f g h"], "query: ")
    assert found.input_ids[0].tolist() == expected.input_ids[0].tolist()


@pytest.mark.parametrize("part", ["some words of text ", *WITHOUT_BLANKS])
def test_the_end_of_a_megabyte_is_kept_without_tokenizing_all_of_it(part: str) -> None:
    tokenizer = minilm(512)
    longest = 0
    original = tokenizer._encode

    def spied(text: str) -> Any:
        nonlocal longest
        longest = max(longest, len(text))
        return original(text)

    tokenizer._encode = spied  # type: ignore[method-assign]

    found = tokenizer.tokenize([part * 60_000 + " and the last"], keep_end=True)

    assert found.n_tokens.tolist() == [512]
    last = minilm(512).tokenize(["and the last"]).input_ids[0].tolist()
    assert found.input_ids[0].tolist()[-4:] == last[-4:]
    assert 0 < longest < 10_000


def test_a_text_that_cannot_be_cut_is_tokenized_once_where_its_end_is_kept() -> None:
    tokenizer, text = minilm(16), "[CLS]" * 1000
    uncut = tokenizer.tokenize([text]).input_ids[0]
    tokenizer._encode = None  # type: ignore[assignment, method-assign]

    assert tokenizer.tokenize([text], keep_end=True).input_ids[0].tolist() == uncut.tolist()


@settings(max_examples=100, deadline=None)
@given(batch=st.lists(texts, max_size=6))
def test_ids_of_this_very_tokenizer_are_the_text_itself(batch: list[str]) -> None:
    tokenizer, whole = minilm(16), minilm(100_000)
    with_special = [ids.tolist() for ids in whole.tokenize(batch).input_ids]
    without = [ids[1:-1] for ids in with_special]

    expected = tokenizer.tokenize(batch)

    for rows in (with_special, without):
        found = tokenizer.tokenize_ids(rows)
        assert list(map(np.ndarray.tolist, found.input_ids)) == list(
            map(np.ndarray.tolist, expected.input_ids)
        )
        assert found.n_tokens.tolist() == expected.n_tokens.tolist()
        assert found.truncated.tolist() == expected.truncated.tolist()
        assert all(ids.dtype == np.int32 for ids in found.input_ids)


@pytest.mark.parametrize("text", ["a b", "word " * 30])
def test_ids_get_the_prompt_in_front_as_texts_do(text: str) -> None:
    ids = minilm(100).tokenize([text]).input_ids[0].tolist()

    expected = minilm(10).tokenize([text], "query: ")

    for row in (ids, ids[1:-1]):
        found = minilm(10).tokenize_ids([row], "query: ")
        assert found.input_ids[0].tolist() == expected.input_ids[0].tolist()
        assert found.truncated.tolist() == expected.truncated.tolist()


def test_a_row_without_ids_is_an_empty_text() -> None:
    tokenizer = minilm(10)

    found = tokenizer.tokenize_ids([[], [101, 102]])

    empty = tokenizer.tokenize([""]).input_ids[0].tolist()
    assert [ids.tolist() for ids in found.input_ids] == [empty, empty]
    assert len(tokenizer.tokenize_ids([])) == 0


@pytest.mark.parametrize("stranger", [-1, 30_522, 10**30])
def test_an_id_out_of_the_vocabulary_is_refused_naming_the_index(stranger: int) -> None:
    tokenizer = minilm(10)
    assert len(tokenizer.tokenize_ids([[0, 30_521]])) == 1

    with pytest.raises(InvalidInputError, match="ids of 0 to 30521 at index 1, found others"):
        tokenizer.tokenize_ids([[7], [8, stranger], [9]])


def test_an_id_out_of_the_vocabulary_is_refused_even_where_it_would_be_cut_off() -> None:
    with pytest.raises(InvalidInputError, match="at index 0"):
        minilm(4).tokenize_ids([[7] * 50 + [99_999]])


def test_a_tokenizer_without_added_tokens_has_a_highest_id_too(tmp_path: Path) -> None:
    words = models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="c")
    FastTokenizer(words).save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path / "tokenizer.json", 8).highest_id == 2
