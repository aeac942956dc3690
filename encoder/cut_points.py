"""Where a long text may be cut so that the tokens on either side stay what they were.

A text of 1 MB then costs what its first tokens cost. Knows pre-tokenizers by their JSON.
"""

from __future__ import annotations

import re
import string
from typing import Any

__all__ = ["CutPoints"]

_SPLITS_AT_ANY_SPACE = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel"}
_AFTER_WORD = r"\S(?=[ \t\r\n])"
_AFTER_WORD_BEFORE_BLANK = r"\S(?= )"
_CJK_PUNCTUATION = "\u3001\u3002\uff01\uff0c\uff1f"
_CJK_IDEOGRAPHS = "\u3400-\u4db5\u4e00-\u9fa5"
"""Those of Unicode 3.0: to a library of older tables later ones are unassigned: it drops them."""
_IDEOGRAPH = re.compile(f"[{_CJK_IDEOGRAPHS}]")
_SLICE = 2**16
"""Characters: a search holds Python's other threads up until it returns."""


class CutPoints:
    """Finds cuts for one tokenizer.

    Why a cut cannot change the tokens before it: the prefix ends with a whole word and what follows
    is white space at which this pre-tokenizer always splits, so every word of the prefix is the
    same word, with the same pieces, in the whole text; normalizers act on a character and the marks
    that follow it, and a blank is in neither. What remains are added tokens that hold a blank: the
    caller drops as many tokens beside the cut as such a token could touch. A pre-tokenizer that is
    not known to split at white space (none, a custom pattern) has its texts tokenized whole.

    BERT's makes a word of its own of each punctuation character, and its normalizer of each
    Chinese one; it composes nothing, so marks that follow such a character change nothing in it.
    Behind one a text without blanks (Chinese, "a-b-c", base64) is cut, too, unless the character is
    also in an added token, which could lie across the cut.

    Args:
        tokenizer: The content of `tokenizer.json`.
    """

    def __init__(self, tokenizer: dict[str, Any]) -> None:
        boundary = _boundary(tokenizer)
        self._boundary = None if boundary is None else re.compile(boundary)

    def after(self, text: str, characters: int) -> int:
        """Return the first place at or after so many characters where the text may be cut."""
        if self._boundary is None:
            return len(text)
        for start in range(characters, len(text), _SLICE):
            # One character more, for a boundary is known by what follows it.
            if found := self._boundary.search(text, start, start + _SLICE + 1):
                return found.end()
        return len(text)


def _boundary(tokenizer: dict[str, Any]) -> str | None:
    pre_tokenizer = tokenizer.get("pre_tokenizer")
    if pre_tokenizer is None:
        return None
    words = _words_of_one_character(tokenizer)
    if words is not None:
        return f"{_AFTER_WORD}|{words}"
    steps = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    names = {step["type"] for step in steps if step.get("use_regex", True)}
    if names & _SPLITS_AT_ANY_SPACE:
        return _AFTER_WORD
    if any(step["type"] == "Metaspace" and step.get("split", True) for step in steps):
        return _AFTER_WORD_BEFORE_BLANK
    return None


def _words_of_one_character(tokenizer: dict[str, Any]) -> str | None:
    """Return a pattern of characters that are words by themselves whatever is beside them."""
    normalizer = tokenizer.get("normalizer") or {}
    types = tokenizer["pre_tokenizer"]["type"], normalizer.get("type")
    if types != ("BertPreTokenizer", "BertNormalizer"):
        return None
    added = {char for token in tokenizer.get("added_tokens") or [] for char in token["content"]}
    characters = re.escape(
        "".join(c for c in string.punctuation + _CJK_PUNCTUATION if c not in added)
    )
    if normalizer.get("handle_chinese_chars") and not any(map(_IDEOGRAPH.match, added)):
        characters += _CJK_IDEOGRAPHS
    return f"[{characters}]" if characters else None
