"""What is said about a model's embedding space, by each of the places that may say it.

A `SpaceDeclaration` is one place's words: the user's settings, the `embedding_space.json` that
`twofold pull` writes, the Sentence Transformers files, or what is built in. Which of them counts
is decided in `encoder.model.files`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import TypeAdapter

from encoder.errors import InvalidInputError, ModelLoadError
from encoder.model.folder import SPACE_FILE
from encoder.records import parse_file
from encoder.settings import DEFAULT_MODEL, EncoderSettings
from encoder.space import EmbeddingSpace, Pooling

__all__ = [
    "NO_INSTRUCT",
    "NO_INSTRUCT_ID",
    "SpaceDeclaration",
    "declaration_of_settings",
    "declaration_of_space",
    "parse_space_file",
    "render_space_file",
]

SPACE_FILE_FORMAT = 1
NO_INSTRUCT_ID = DEFAULT_MODEL


@dataclass(frozen=True)
class SpaceDeclaration:
    """What one place says about an embedding space; None where it says nothing.

    Attributes:
        origin: The place, as error messages name it.
        query_pooling: Pooling of queries.
        document_pooling: Pooling of documents.
        query_prompt: Text in front of every query.
        document_prompt: Text in front of every document.
        normalize: Whether vectors have unit length.
        max_seq_length: Tokens per text, special tokens included.
        truncate_dim: Leading dimensions kept.
        pooling_problem: Why a pooling is None although something was said.
        normalize_problem: Why `normalize` must be said by the user.
    """

    origin: str
    query_pooling: Pooling | None = None
    document_pooling: Pooling | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    normalize: bool | None = None
    max_seq_length: int | None = None
    truncate_dim: int | None = None
    pooling_problem: str | None = None
    normalize_problem: str | None = None

    def reading(self) -> str:
        """Return the roles as an error message shows them."""
        roles = []
        for role, pooling, prompt in (
            ("query", self.query_pooling, self.query_prompt),
            ("document", self.document_pooling, self.document_prompt),
        ):
            words = pooling.value if pooling else "no usable pooling"
            roles.append(f"{role} {words}" + (f" with prompt {prompt!r}" if prompt else ""))
        return f"{self.origin}: {', '.join(roles)}"


NO_INSTRUCT = SpaceDeclaration(
    # From its model card: get_embedding(mode="query") is the masked mean, "sentence" is [CLS]. Its
    # 512 tokens are its tokenizer's and its positions' limit, so they need no declaration.
    origin="the model card",
    query_pooling=Pooling.MEAN,
    document_pooling=Pooling.CLS,
    query_prompt="",
    document_prompt="",
)


def declaration_of_settings(settings: EncoderSettings) -> SpaceDeclaration:
    """Return what the user set explicitly."""
    return SpaceDeclaration(
        origin="settings",
        query_pooling=settings.query_pooling,
        document_pooling=settings.document_pooling,
        query_prompt=settings.query_prompt,
        document_prompt=settings.document_prompt,
        normalize=settings.normalize,
        max_seq_length=settings.max_seq_length,
        truncate_dim=settings.truncate_dim,
    )


def declaration_of_space(space: EmbeddingSpace) -> SpaceDeclaration:
    """Return what a mirror's `embedding_space.json` says."""
    return SpaceDeclaration(
        origin=SPACE_FILE,
        query_pooling=space.query.pooling,
        document_pooling=space.document.pooling,
        query_prompt=space.query.prompt,
        document_prompt=space.document.prompt,
        normalize=space.normalize,
        max_seq_length=space.max_seq_length,
        truncate_dim=space.truncate_dim,
    )


def parse_space_file(content: bytes, origin: str) -> EmbeddingSpace:
    """Return the space in an `embedding_space.json` that was read from `origin`.

    Raises:
        ModelLoadError: It is not one.
        NewerFormatError: A newer version of twofold mirrored the model.
    """
    try:
        return parse_file(_SPACE_FILE, content, SPACE_FILE_FORMAT, origin).space
    except InvalidInputError as error:
        raise ModelLoadError(
            f"{origin}: {error}; mirror the model again with `twofold pull`"
        ) from error


def render_space_file(space: EmbeddingSpace, *, reference: str, revision: str | None) -> bytes:
    """Return the bytes of an `embedding_space.json`.

    Args:
        space: The space that the mirrored files span.
        reference: The model reference that was mirrored.
        revision: Its commit on the hub, if it came from there.
    """
    source = {"reference": reference, "revision": revision}
    record = {"format": SPACE_FILE_FORMAT, "space": space.to_dict(), "source": source}
    return (json.dumps(record, indent=2) + "\n").encode()


@dataclass(frozen=True)
class _SpaceFile:
    """What counts of an `embedding_space.json`; where the model was copied from does not."""

    space: EmbeddingSpace


_SPACE_FILE = TypeAdapter(_SpaceFile)
