"""Where a long text may be cut so that the tokens on either side stay what they were.

A text of 1 MB then costs what its first tokens cost. Knows pre-tokenizers by their JSON.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["CutPoints"]

_SPLITS_AT_ANY_SPACE = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel"}
_AFTER_WORD = re.compile(r"\S(?=[ \t\r\n])")
_AFTER_WORD_BEFORE_BLANK = re.compile(r"\S(?= )")


class CutPoints:
    """Finds cuts for one tokenizer.

    Why a cut cannot change the tokens before it: the prefix ends with a whole word and what follows
    is white space at which this pre-tokenizer always splits, so every word of the prefix is the
    same word, with the same pieces, in the whole text; normalizers act on a character and the marks
    that follow it, and a blank is in neither. What remains are added tokens that hold a blank: the
    caller drops as many tokens beside the cut as such a token could touch. A pre-tokenizer that is
    not known to split at white space (none, a custom pattern) has its texts tokenized whole.

    Args:
        pre_tokenizer: That part of `tokenizer.json`; None where there is none.
    """

    def __init__(self, pre_tokenizer: dict[str, Any] | None) -> None:
        self._boundary = _boundary(pre_tokenizer)

    def after(self, text: str, characters: int) -> int:
        """Return the first place at or after so many characters where the text may be cut."""
        if self._boundary is None or len(text) <= characters:
            return len(text)
        found = self._boundary.search(text, characters)
        return found.end() if found else len(text)


def _boundary(pre_tokenizer: dict[str, Any] | None) -> re.Pattern[str] | None:
    if pre_tokenizer is None:
        return None
    steps = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    names = {step["type"] for step in steps if step.get("use_regex", True)}
    if names & _SPLITS_AT_ANY_SPACE:
        return _AFTER_WORD
    if any(step["type"] == "Metaspace" and step.get("split", True) for step in steps):
        return _AFTER_WORD_BEFORE_BLANK
    return None
