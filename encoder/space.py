"""The embedding space: the contract that makes two vectors comparable.

Two vectors may be compared only if every field of `EmbeddingSpace` is equal: the weights and the
tokenizer by content, pooling and prompt per role, normalization, the length at which texts are
cut, and the dimension. `fingerprint` is a short name for all of them. The space holds content only:
where the weights came from (hub, bucket, volume), the precision and the backend are provenance and
are recorded beside it, never inside it.

This module knows nothing of files, tensors or Ray.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import Enum, StrEnum
from functools import cached_property
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from encoder.errors import InvalidInputError
from encoder.records import parse_record

__all__ = ["EmbeddingSpace", "Pooling", "Role", "RoleEncoding"]

_FINGERPRINT_HEX_DIGITS = 16


class Role(StrEnum):
    """What a text is to retrieval. The model card's "sentence" is a document."""

    QUERY = "query"
    DOCUMENT = "document"


class Pooling(StrEnum):
    """How token embeddings (T, D) become one vector (D,)."""

    CLS = "cls"
    """The first token's embedding."""
    MEAN = "mean"
    """The mean over the tokens that the attention mask keeps."""


@dataclass(frozen=True)
class RoleEncoding:
    """How texts of one role are encoded.

    Attributes:
        pooling: Reduction of the token embeddings.
        prompt: Text put in front of every input of this role; empty for none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    pooling: Pooling
    prompt: str = ""


@dataclass(frozen=True)
class EmbeddingSpace:
    """Everything that decides whether two vectors are comparable.

    Attributes:
        weights_sha256: Hex digest of the safetensors file (of the digests, in name order, when
            the weights are sharded).
        tokenizer_sha256: Hex digest of tokenizer.json.
        query: How queries are encoded.
        document: How documents are encoded.
        normalize: Whether vectors have unit length, so that a dot product is the cosine.
        max_seq_length: Tokens per text, special tokens included; longer texts are cut.
        truncate_dim: Leading dimensions kept (Matryoshka models), or None for all of them.
        dimension: Length of the vectors that come out, after `truncate_dim`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    weights_sha256: str
    tokenizer_sha256: str
    query: RoleEncoding
    document: RoleEncoding
    normalize: bool
    max_seq_length: int
    truncate_dim: int | None
    dimension: int

    def role(self, role: Role) -> RoleEncoding:
        """Return how texts of `role` are encoded."""
        return self.query if role is Role.QUERY else self.document

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:_FINGERPRINT_HEX_DIGITS]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, nested as the fields are."""
        return asdict(self, dict_factory=_plain)

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no white space, ASCII."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> EmbeddingSpace:
        """Rebuild a space from `to_json`.

        Raises:
            InvalidInputError: A field is missing, unknown or of another type.
        """
        try:
            return parse_record(_ADAPTER, text)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"not an embedding space of this version of twofold: {error}"
            ) from error

    def summary(self) -> str:
        """Return what a person checks before a long job: roles, prompts, lengths."""
        roles = (
            f"{role.value} {encoding.pooling.value} "
            + (f"with prompt {encoding.prompt!r}" if encoding.prompt else "without prompt")
            for role, encoding in ((Role.QUERY, self.query), (Role.DOCUMENT, self.document))
        )
        lengths = "unit length" if self.normalize else "lengths as they come"
        return (
            f"{self.fingerprint} ({', '.join(roles)}, {self.max_seq_length} tokens, "
            f"{self.dimension} dimensions, {lengths})"
        )

    def differences(self, other: EmbeddingSpace) -> dict[str, tuple[Any, Any]]:
        """Return the fields in which two spaces differ, as name -> (ours, theirs)."""
        ours, theirs = self.to_dict(), other.to_dict()
        return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}


_ADAPTER = TypeAdapter(EmbeddingSpace)


def _plain(fields_of_one: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        name: value.value if isinstance(value, Enum) else value for name, value in fields_of_one
    }
