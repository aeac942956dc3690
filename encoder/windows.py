"""Cut a long text into windows of characters that each fit the model.

Works on character offsets that a tokenizer reports, and checks every window by tokenizing it by
itself: a piece of a text need not tokenize like the same piece inside the text. Knows neither the
model nor the corpus; `Tokenizer.windows` is the way in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from encoder.errors import InvalidInputError

__all__ = ["check_overlap", "plan_windows"]

_CHARACTERS_PER_TOKEN = 8
_GROWTH = 4
_NOT_WHITE_SPACE = re.compile(r"\S")


class _Encoding(Protocol):
    """What is read of `tokenizers.Encoding`."""

    @property
    def offsets(self) -> list[tuple[int, int]]: ...
    @property
    def word_ids(self) -> list[int | None]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class _Tokens:
    """Tokens from `start` on, as far as they were looked at.

    Attributes:
        starts: Start of each token, in characters of the whole text.
        word_starts: Whether each token begins a word.
        n_prompt: Leading tokens that belong to the prompt alone.
        end: Where looking stopped, in characters of the whole text.
    """

    starts: list[int]
    word_starts: list[bool]
    n_prompt: int
    end: int


def plan_windows(
    text: str,
    encode: Callable[[str], _Encoding],
    content_tokens: int,
    overlap: int,
    prompt: str = "",
) -> list[tuple[int, int]]:
    """Return the character spans of windows over a text that does not fit into one.

    Args:
        text: The text to cut; white space alone has no windows.
        encode: Tokenizes the prompt and a part of the text, without special tokens.
        content_tokens: Tokens per window, prompt included, special tokens not.
        overlap: Tokens that neighbouring windows share; see `check_overlap`.
        prompt: What `encode` puts in front.
    """
    return _Planner(text, encode, content_tokens, overlap, len(prompt)).plan()


def check_overlap(overlap: int, window_tokens: int) -> None:
    """Raise InvalidInputError unless windows of so many tokens can overlap so far."""
    if not 0 <= overlap < window_tokens:
        raise InvalidInputError(
            f"expected a chunk overlap from 0 to {window_tokens - 1} tokens (a window holds "
            f"{window_tokens} beside prompt and special tokens), found {overlap}; lower the "
            "overlap or raise max_seq_length"
        )


class _Planner:
    def __init__(
        self,
        text: str,
        encode: Callable[[str], _Encoding],
        content_tokens: int,
        overlap: int,
        prompt_characters: int,
    ) -> None:
        self._text = text
        self._encode = encode
        self._content_tokens = content_tokens
        self._overlap = overlap
        self._prompt_characters = prompt_characters

    def plan(self) -> list[tuple[int, int]]:
        text = self._text
        last = len(text.rstrip())
        windows: list[tuple[int, int]] = []
        start = covered = 0
        while covered < last:
            tokens = self._look(start)
            end = self._end(start, tokens)
            if end <= covered:
                # The overlap left no room for anything new (a long word): go on without it.
                start = covered
                continue
            width = len(text[start:end].rstrip())
            if width:
                windows.append((start, start + width))
            covered = end
            start = self._skip_white_space(self._next_start(start, end, tokens))
        return windows

    def _skip_white_space(self, start: int) -> int:
        found = _NOT_WHITE_SPACE.search(self._text, start)
        return found.start() if found else start

    def _look(self, start: int) -> _Tokens:
        """Tokenize from `start` on, far enough to see where a window ends."""
        characters = _CHARACTERS_PER_TOKEN * (self._content_tokens + 1)
        while True:
            end = min(start + characters, len(self._text))
            encoding = self._encode(self._text[start:end])
            if len(encoding) > self._content_tokens or end == len(self._text):
                return self._tokens(start, end, encoding)
            characters *= _GROWTH

    def _tokens(self, start: int, end: int, encoding: _Encoding) -> _Tokens:
        offsets, words = encoding.offsets, encoding.word_ids
        shift = start - self._prompt_characters
        return _Tokens(
            starts=[max(start, first + shift) for first, _ in offsets],
            word_starts=[i == 0 or words[i] != words[i - 1] for i in range(len(words))],
            n_prompt=sum(last <= self._prompt_characters for _, last in offsets),
            end=end,
        )

    def _end(self, start: int, tokens: _Tokens) -> int:
        """Return the largest end that fits, at a word's start where one is near."""
        limit = self._content_tokens
        if len(tokens.starts) <= limit:
            return tokens.end
        while limit > tokens.n_prompt:
            # Back to a word's start, but never by more than half a window.
            lowest = (limit + tokens.n_prompt) // 2
            end = tokens.starts[self._snap(limit, tokens, lowest)]
            if end <= start:
                break
            excess = self._excess(start, end)
            if excess <= 0:
                return end
            limit -= excess
        return self._shrink(start, tokens)

    def _shrink(self, start: int, tokens: _Tokens) -> int:
        """Return an end by halving, where tokens gave none; at least one character."""
        end = min(tokens.end, start + self._content_tokens)
        while end > start + 1 and not self._fits(start, end):
            end = start + (end - start) // 2
        return end

    @staticmethod
    def _snap(index: int, tokens: _Tokens, lowest: int) -> int:
        """Return the token at or before `index` that begins a word, or `index` itself."""
        return next((i for i in range(index, lowest, -1) if tokens.word_starts[i]), index)

    def _next_start(self, start: int, end: int, tokens: _Tokens) -> int:
        """Return where the next window begins: `overlap` tokens before this one's end."""
        last = next((i for i, s in enumerate(tokens.starts) if s >= end), len(tokens.starts))
        first = last - self._overlap
        if first <= tokens.n_prompt or self._overlap == 0:
            return end
        lowest = max(tokens.n_prompt, first - self._overlap)
        snapped = tokens.starts[self._snap(first, tokens, lowest)]
        candidate = snapped if snapped > start else tokens.starts[first]
        return min(candidate, end) if candidate > start else end

    def _excess(self, start: int, end: int) -> int:
        return len(self._encode(self._text[start:end])) - self._content_tokens

    def _fits(self, start: int, end: int) -> bool:
        return self._excess(start, end) <= 0
