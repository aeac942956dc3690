"""Texts of either role to token ids: a tokenizer that knows each role's prompt.

What counting tokens needs of a model. Loading the weights takes seconds and memory that it does
not; `encoder.encoder.Encoder` is one that has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from encoder.space import EmbeddingSpace, Role
from encoder.tokenizer import Tokenized, Tokenizer

__all__ = ["RoleTokenizer"]


class RoleTokenizer:
    """The tokenizer of an embedding space. Safe to use from several threads.

    Args:
        space: Says each role's prompt.
        tokenizer: Cuts at the space's `max_seq_length`.
    """

    def __init__(self, space: EmbeddingSpace, tokenizer: Tokenizer) -> None:
        self.space = space
        self._tokenizer = tokenizer

    @classmethod
    def read(cls, space: EmbeddingSpace, tokenizer_json: Path) -> RoleTokenizer:
        """Read a model's `tokenizer.json`.

        Raises:
            ModelLoadError: The file is not a fast tokenizer, or leaves no room for text.
        """
        return RoleTokenizer(space, Tokenizer(tokenizer_json, space.max_seq_length))

    def tokenize(self, texts: Sequence[str], role: Role, *, keep_end: bool = False) -> Tokenized:
        """Tokenize texts with the role's prompt in front.

        Args:
            texts: N texts.
            role: Whose prompt.
            keep_end: Keep the end of a text that is too long, not its beginning.

        Raises:
            InvalidInputError: A text is not a string or not valid Unicode; names its index.
        """
        prompt = self.space.role(role).prompt
        return self._tokenizer.tokenize(texts, prompt, keep_end=keep_end)

    def tokenize_ids(
        self, id_rows: Sequence[Sequence[int]], role: Role, *, keep_end: bool = False
    ) -> Tokenized:
        """Take texts that a client has tokenized, without special tokens; see `Tokenizer`.

        Raises:
            InvalidInputError: An id is not one of this model's vocabulary; names its index.
        """
        prompt = self.space.role(role).prompt
        return self._tokenizer.tokenize_ids(id_rows, prompt, keep_end=keep_end)

    def windows(self, text: str, *, overlap: int, role: Role) -> list[tuple[int, int]]:
        """Cut a long text into character spans that each fit; see `Tokenizer.windows`."""
        return self._tokenizer.windows(text, overlap=overlap, prompt=self.space.role(role).prompt)
