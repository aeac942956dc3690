"""Texts in, token ids out, and nothing cut without saying so.

`Tokenizer` drives the Rust library `tokenizers` directly: it releases the GIL, and the truncation
and padding that some `tokenizer.json` files carry (MiniLM's: 128) are ignored in favour of the
embedding space's `max_seq_length`. The ids equal those of the model card's
`AutoTokenizer(text, truncation=True)`.

This module knows nothing of tensors, batches or models. Chunking is `encoder.windows`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer

from encoder.cut_points import CutPoints
from encoder.errors import InvalidInputError, ModelLoadError
from encoder.windows import check_overlap, plan_windows

__all__ = ["Tokenized", "Tokenizer"]

_GROUP_CHARACTERS = 512 * 1024
"""Characters tokenized in one Rust call: about 50 bytes of encoding a character in English."""
_CHARACTERS_PER_TOKEN = 8
"""First guess of the characters that a token takes; English in WordPiece takes 4 to 5."""
_GROWTH = 4


@dataclass(frozen=True)
class Tokenized:
    """Texts as the model will see them.

    Attributes:
        input_ids: For each text its ids, special tokens included, int32 (T_i,).
        n_tokens: Tokens given to the model, int32 (N,).
        truncated: Whether the text was longer than `max_seq_length`, bool (N,).
    """

    input_ids: list[npt.NDArray[np.int32]]
    n_tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def total_tokens(self) -> int:
        """Tokens of all texts."""
        return int(self.n_tokens.sum())

    def take(self, indices: Sequence[int]) -> Tokenized:
        """Return some of the texts, in the order of `indices`."""
        rows = np.asarray(indices, dtype=np.intp)
        return Tokenized(
            [self.input_ids[row] for row in rows], self.n_tokens[rows], self.truncated[rows]
        )

    @classmethod
    def join(cls, parts: Sequence[Tokenized]) -> Tokenized:
        """Return the texts of all parts, one after the other; a single part itself."""
        if not parts:
            return cls([], np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.bool_))
        if len(parts) == 1:
            return parts[0]
        return cls(
            [ids for part in parts for ids in part.input_ids],
            np.concatenate([part.n_tokens for part in parts]),
            np.concatenate([part.truncated for part in parts]),
        )


class Tokenizer:
    """A model's fast tokenizer, cutting at `max_seq_length` tokens.

    Args:
        tokenizer_json: Path of the model's `tokenizer.json`.
        max_seq_length: Tokens per text, special tokens included.

    Attributes:
        highest_id: That any token has.

    Raises:
        ModelLoadError: The file is not a fast tokenizer, or leaves no room for text.
    """

    def __init__(self, tokenizer_json: Path, max_seq_length: int) -> None:
        try:
            content = tokenizer_json.read_text(encoding="utf-8")
            # The library raises plain Exception for a file that it cannot read.
            self._fast = FastTokenizer.from_str(content)
        except Exception as error:
            raise ModelLoadError(
                f"expected a fast tokenizer in {tokenizer_json}, found: {error}; "
                "the model folder must hold a tokenizer.json"
            ) from error
        self._fast.no_truncation()
        self._fast.no_padding()
        self.max_seq_length = max_seq_length
        self._before, self._after = _special_tokens(self._fast)
        self._content_tokens = max_seq_length - len(self._before) - len(self._after)
        if self._content_tokens < 1:
            raise ModelLoadError(
                f"max_seq_length {max_seq_length} leaves no room beside the "
                f"{len(self._before) + len(self._after)} special tokens; raise max_seq_length"
            )
        settings = json.loads(content)
        self._cuts = CutPoints(settings)
        # An added token that holds a blank ("<end of text>") may lie across a cut: the tokens of
        # its own characters are then unlike the uncut text's, and only those.
        added = settings.get("added_tokens") or []
        self._margin = 1 + max((len(token["content"]) for token in added), default=0)
        self.highest_id = max([self._fast.get_vocab_size() - 1, *(token["id"] for token in added)])

    @property
    def begins_texts(self) -> bool:
        """Whether a token ([CLS]) comes before each text's own."""
        return bool(self._before)

    def tokenize(
        self, texts: Sequence[str], prompt: str = "", *, keep_end: bool = False
    ) -> Tokenized:
        """Tokenize texts, each with `prompt` in front.

        Args:
            texts: N texts of any length; one of 1 MB costs what its first tokens cost, unless it is
                of a kind that cannot be cut (`encoder.cut_points`): a single word, kana alone.
            prompt: Put in front of every text.
            keep_end: Keep the last tokens of a text that is too long, not the first ones.

        Returns:
            The ids, lengths and cuts of the N texts, in input order.

        Raises:
            InvalidInputError: A text is not a string or cannot be written as UTF-8; names its
                index.
        """
        _check_texts(texts)
        inputs = [prompt + text for text in texts] if prompt else texts
        needed = self._content_tokens + self._margin
        input_ids: list[npt.NDArray[np.int32]] = [_NO_IDS] * len(inputs)
        truncated = np.zeros(len(inputs), dtype=np.bool_)
        characters = _CHARACTERS_PER_TOKEN * needed
        pending: Sequence[int] = range(len(inputs))
        while pending:
            again: list[int] = []
            ends = {index: self._cuts.after(inputs[index], characters) for index in pending}
            for group in _groups(ends):
                encodings = self._fast.encode_batch_fast(
                    [inputs[index][: ends[index]] for index in group], add_special_tokens=False
                )
                for index, encoding in zip(group, encodings, strict=True):
                    # Too few tokens before the cut to be sure of: look at more of the text.
                    if len(encoding) < needed and ends[index] < len(inputs[index]):
                        again.append(index)
                        continue
                    truncated[index] = len(encoding) > self._content_tokens
                    ids = encoding.ids
                    if keep_end and truncated[index]:
                        is_whole = ends[index] == len(texts[index]) and not prompt
                        last = slice(-self._content_tokens, None)
                        ids = ids[last] if is_whole else self._last_ids(texts[index], prompt)
                    input_ids[index] = self._with_special_tokens(ids)
            pending = again
            characters *= _GROWTH
        return _tokenized(input_ids, truncated)

    def tokenize_ids(
        self, id_rows: Sequence[Sequence[int]], prompt: str = "", *, keep_end: bool = False
    ) -> Tokenized:
        """Take texts that were tokenized elsewhere with this very tokenizer.

        Args:
            id_rows: N rows of ids; the special tokens around a text may be there or not.
            prompt: Put in front of every text.
            keep_end: Keep the last ids of a row that is too long, not the first ones.

        Raises:
            InvalidInputError: An id is outside the vocabulary; names the row.
        """
        vocabulary = self._fast.get_vocab_size()
        prompt_ids = self._encode(prompt).ids if prompt else []
        input_ids, truncated = [], np.zeros(len(id_rows), dtype=np.bool_)
        for index, row in enumerate(id_rows):
            if any(not 0 <= token < vocabulary for token in row):
                raise InvalidInputError(
                    f"expected token ids of 0 to {vocabulary - 1} at index {index}, found others; "
                    "tokenize with this model's tokenizer, or send text"
                )
            content = self._without_special_tokens(row)
            room = max(0, self._content_tokens - len(prompt_ids))
            truncated[index] = len(prompt_ids) + len(content) > self._content_tokens
            kept = content[max(0, len(content) - room) :] if keep_end else content
            input_ids.append(self._with_special_tokens([*prompt_ids, *kept]))
        return _tokenized(input_ids, truncated)

    def windows(self, text: str, *, overlap: int, prompt: str = "") -> list[tuple[int, int]]:
        """Cut a long text into windows that each fit the model.

        Args:
            text: The text; one that fits comes back whole.
            overlap: Tokens that neighbouring windows share (more where a word would be cut).
            prompt: The prompt that every window will be given.

        Returns:
            Character spans (start, end): `text[start:end]`, tokenized by itself with the prompt,
            is not truncated. Every character that is not white space is covered. A text of only
            white space has no windows. (One character that alone takes more tokens than the model
            is a window of its own, and its embedding says `truncated`.)

        Raises:
            InvalidInputError: `overlap` is negative or not smaller than the window, or the prompt
                leaves no room, or the text cannot be written as UTF-8.
        """
        check_overlap(overlap, self._content_tokens - len(self._encode(prompt)))
        if not self.tokenize([text], prompt).truncated[0]:
            return [(0, len(text))] if text.strip() else []
        return plan_windows(
            text, lambda part: self._encode(prompt + part), self._content_tokens, overlap, prompt
        )

    def _encode(self, text: str) -> Encoding:
        # encode_batch releases the GIL, encode does not.
        return self._fast.encode_batch([text], add_special_tokens=False)[0]

    def _last_ids(self, text: str, prompt: str) -> list[int]:
        """Return the ids of the prompt and of the end of a text that is too long."""
        prompt_ids = self._encode(prompt).ids if prompt else []
        room = max(0, self._content_tokens - len(prompt_ids))
        characters = _CHARACTERS_PER_TOKEN * (room + self._margin)
        while True:
            # Where one text may end another may begin: words are whole on both sides.
            start = self._cuts.after(text, len(text) - characters) if characters < len(text) else 0
            ids = self._encode(text[start:] if start < len(text) else text).ids
            if start in (0, len(text)) or len(ids) >= room + self._margin:
                return [*prompt_ids, *ids[max(0, len(ids) - room) :]]
            characters *= _GROWTH

    def _with_special_tokens(self, ids: Sequence[int]) -> npt.NDArray[np.int32]:
        return np.array([*self._before, *ids[: self._content_tokens], *self._after], dtype=np.int32)

    def _without_special_tokens(self, ids: Sequence[int]) -> Sequence[int]:
        before, after = len(self._before), len(self._after)
        has_both = len(ids) >= before + after and (
            list(ids[:before]) == self._before and list(ids[len(ids) - after :]) == self._after
        )
        return ids[before : len(ids) - after] if has_both else ids


_NO_IDS = np.empty(0, dtype=np.int32)


def _tokenized(
    input_ids: list[npt.NDArray[np.int32]], truncated: npt.NDArray[np.bool_]
) -> Tokenized:
    n_tokens = np.fromiter((len(ids) for ids in input_ids), np.int32, len(input_ids))
    return Tokenized(input_ids, n_tokens, truncated)


def _special_tokens(fast: FastTokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the post-processor puts before and after a text."""
    encoding = fast.encode("a")
    text_positions = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    if not text_positions:
        raise ModelLoadError(
            "expected tokens for the text 'a', found none; tokenizer.json is damaged or empty"
        )
    return encoding.ids[: text_positions[0]], encoding.ids[text_positions[-1] + 1 :]


def _groups(ends: dict[int, int]) -> Iterator[list[int]]:
    """Yield indices in groups of at most `_GROUP_CHARACTERS` characters (or one text)."""
    group: list[int] = []
    characters = 0
    for index, end in ends.items():
        if group and characters + end > _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
        group.append(index)
        characters += end
    if group:
        yield group


def _check_texts(texts: Sequence[str]) -> None:
    """Raise InvalidInputError for the first text that the tokenizer could not take."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(
                f"expected a string at index {index}, found {type(text).__name__}; "
                "pass text, or leave the row out"
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"expected text that can be written as UTF-8 at index {index}, found a lone "
                f"surrogate at character {error.start}; repair the text or leave the row out"
            ) from error
