"""Which embedding space a model folder spans.

Precedence, field by field: explicit settings, then `embedding_space.json` (which is complete) or
else the Sentence Transformers files, then what is built in for NoInstruct, then the model's own
limits. A model of which nothing says the pooling is refused: a guess would be a silent error in
every vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from encoder.errors import ModelLoadError
from encoder.model.declarations import (
    NO_INSTRUCT,
    SpaceDeclaration,
    declaration_of_settings,
    declaration_of_space,
    parse_space_file,
)
from encoder.model.files import ModelFiles
from encoder.model.folder import SPACE_FILE, TOKENIZER_FILE
from encoder.model.known_models import built_in, is_no_instruct
from encoder.model.reference import ModelReference, ReferenceKind
from encoder.model.sentence_transformers_files import read_sentence_transformers
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace, RoleEncoding

__all__ = ["load_space"]


def load_space(
    files: ModelFiles, settings: EncoderSettings, reference: ModelReference
) -> EmbeddingSpace:
    """Return the embedding space that a model's files span under the given settings.

    Args:
        files: The model's files; weights and tokenizer are read to their end for their digests.
        settings: Explicit settings, which override what the files say.
        reference: How the user named the model: the hub's NoInstruct is built in.

    Raises:
        ModelLoadError: Nothing says the pooling, the files contradict what is built in or their
            own digests, or a length or dimension is beyond the model's.
    """
    digests = files.weights_sha256(), files.tokenizer_sha256()
    said = _merged(_declarations(files, settings, reference, digests))
    query, document = _role_encodings(said, files)
    truncate_dim, dimension = _dimensions(said, files)
    return EmbeddingSpace(
        weights_sha256=digests[0],
        tokenizer_sha256=digests[1],
        query=query,
        document=document,
        normalize=_normalize(said, files),
        max_seq_length=_max_seq_length(said, files),
        truncate_dim=truncate_dim,
        dimension=dimension,
    )


def _declarations(
    files: ModelFiles,
    settings: EncoderSettings,
    reference: ModelReference,
    digests: tuple[str, str],
) -> list[SpaceDeclaration]:
    """Return who says what, the one that counts most first."""
    explicit = declaration_of_settings(settings)
    path = files.folder / SPACE_FILE
    is_mirror = path.is_file()
    if is_mirror:
        mirrored = parse_space_file(path.read_bytes(), str(path))
        _check_digests(files, mirrored, digests)
        declared = declaration_of_space(mirrored)
    elif reference.kind is ReferenceKind.HUB and is_no_instruct(reference.name):
        # The hub's own repository is what the model card describes, whatever files it gains.
        return [explicit, NO_INSTRUCT]
    else:
        declared = read_sentence_transformers(files.folder)
    known = built_in(files, reference, explicit, declared, is_settled=is_mirror)
    return [explicit, declared, *known]


def _check_digests(files: ModelFiles, mirrored: EmbeddingSpace, digests: tuple[str, str]) -> None:
    expected = mirrored.weights_sha256, mirrored.tokenizer_sha256
    names = ", ".join(path.name for path in files.weights), TOKENIZER_FILE
    for name, recorded, found in zip(names, expected, digests, strict=True):
        if recorded != found:
            raise ModelLoadError(
                f"{files.folder}: {name} has sha256 {found}, {SPACE_FILE} recorded {recorded}; "
                "the mirror is damaged or was changed by hand: mirror the model again"
            )
    whole = mirrored.truncate_dim or files.hidden_size
    if mirrored.dimension != whole:
        raise ModelLoadError(
            f"{files.folder / SPACE_FILE} says dimension {mirrored.dimension}, the model has "
            f"{whole}; mirror the model again"
        )


def _role_encodings(said: SpaceDeclaration, files: ModelFiles) -> tuple[RoleEncoding, RoleEncoding]:
    if said.query_pooling is None or said.document_pooling is None:
        raise ModelLoadError(
            f"{files.folder}: {said.pooling_problem or 'nothing says the pooling of this model'}; "
            "give --query-pooling and --document-pooling (cls or mean) as its model card says"
        )
    return (
        RoleEncoding(said.query_pooling, said.query_prompt or ""),
        RoleEncoding(said.document_pooling, said.document_prompt or ""),
    )


def _normalize(said: SpaceDeclaration, files: ModelFiles) -> bool:
    if said.normalize is None and said.normalize_problem:
        raise ModelLoadError(f"{files.folder}: {said.normalize_problem}")
    return True if said.normalize is None else said.normalize


def _dimensions(said: SpaceDeclaration, files: ModelFiles) -> tuple[int | None, int]:
    """Return truncate_dim and the length of the vectors that come out."""
    hidden_size = files.hidden_size
    truncate_dim = said.truncate_dim
    if truncate_dim is not None and truncate_dim > hidden_size:
        raise ModelLoadError(
            f"{files.folder}: truncate_dim {truncate_dim} is beyond the model's {hidden_size} "
            f"dimensions; give --truncate-dim {hidden_size} or less"
        )
    # Keeping all dimensions is truncating nothing: the same vectors must be the same space.
    truncate_dim = None if truncate_dim == hidden_size else truncate_dim
    return truncate_dim, truncate_dim or hidden_size


def _max_seq_length(said: SpaceDeclaration, files: ModelFiles) -> int:
    limit = files.position_limit
    length = said.max_seq_length
    if length is None:
        limits = [one for one in (files.tokenizer_limit, limit) if one is not None]
        if not limits:
            raise ModelLoadError(
                f"{files.folder}: nothing says how long a text may be; give --max-seq-length"
            )
        return min(limits)
    if limit is not None and length > limit:
        raise ModelLoadError(
            f"{files.folder}: max_seq_length {length} is beyond the {limit} tokens that the "
            f"model's position embeddings reach; give --max-seq-length {limit} or less"
        )
    return length


def _merged(said: Sequence[SpaceDeclaration]) -> SpaceDeclaration:
    """Return one declaration: each field from the first that says it."""
    values: dict[str, Any] = {
        field.name: next((v for one in said if (v := getattr(one, field.name)) is not None), None)
        for field in fields(SpaceDeclaration)
    }
    return SpaceDeclaration(**values)
