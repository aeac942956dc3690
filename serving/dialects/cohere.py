"""Cohere's embed API: `POST /v2/embed`, and `POST /v1/embed` for clients of version 1.

Version 1, which LangChain's and LlamaIndex's classes for Cohere use, answers with bare floats where
no types are asked for; all else is the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, StrictInt, StrictStr

from encoder.errors import InvalidInputError
from serving.dialects.served_models import ServedModels
from serving.dialects.wire import Body, PositiveInt, TextList, base64_floats, respond
from serving.embed_request import Embedding, EmbedRequest, Truncate
from serving.embedding import EmbeddingService
from serving.request_record import record_of

__all__ = ["CohereEmbed", "router"]

_BITS = 8
_EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
_Vectors = npt.NDArray[np.float32]


class CohereEmbed(Body):
    """Body of `POST /v2/embed` and `POST /v1/embed`."""

    inputs_field: ClassVar[str | None] = "texts"

    model: StrictStr | None = Field(None, description="A served name")
    texts: TextList = Field(description="Texts to embed")
    input_type: StrictStr | None = Field(None, description="search_query, search_document, ...")
    truncate: Literal["NONE", "START", "END"] | None = Field(
        None, description="Where long texts are cut; END where absent"
    )
    embedding_types: list[_EmbeddingType] | None = Field(
        None,
        max_length=len(get_args(_EmbeddingType)),
        description="float, base64 (of float32), binary, ubinary",
    )
    output_dimension: PositiveInt | None = Field(None, description="Leading dimensions to keep")
    max_tokens: PositiveInt | None = Field(
        None, description="Refused unless it is the model's own max_seq_length"
    )
    priority: StrictInt | None = Field(None, description="Not used")


class CohereEmbeddings(BaseModel):
    """Answer of `POST /v2/embed`, and of version 1 with types: each of them by its name."""

    id: str
    texts: list[str]
    embeddings: dict[str, list[list[float]] | list[list[int]] | list[str]]
    response_type: Literal["embeddings_by_type"]
    meta: dict[str, Any] = Field(description="billed_units.input_tokens; truncated: indices")


class CohereFloats(BaseModel):
    """Answer of `POST /v1/embed` where no types are asked for."""

    id: str
    texts: list[str]
    embeddings: list[list[float]]
    response_type: Literal["embeddings_floats"]
    meta: dict[str, Any] = Field(description="billed_units.input_tokens; truncated: indices")


def router(service: EmbeddingService, models: ServedModels) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["Cohere"])

    @routes.post(
        "/v2/embed",
        summary="As Cohere does",
        responses={200: {"model": CohereEmbeddings}},
    )
    async def embed(body: CohereEmbed, request: Request) -> Response:
        return await answer(body, request, "2")

    @routes.post(
        "/v1/embed",
        summary="As Cohere's version 1 does",
        responses={200: {"model": CohereFloats | CohereEmbeddings}},
    )
    async def embed_as_version_1(body: CohereEmbed, request: Request) -> Response:
        return await answer(body, request, "1")

    async def answer(body: CohereEmbed, request: Request, version: str) -> Response:
        record = record_of(request.scope)
        record.dialect = "cohere"
        _, role = models.choose(body.model, {"input_type": body.input_type})
        record.role = role.value
        longest = service.space.max_seq_length
        if body.max_tokens is not None and body.max_tokens != longest:
            raise InvalidInputError(
                f"max_tokens: expected {longest}, the model's own, found {body.max_tokens}: "
                "vectors of texts cut elsewhere are of another space; leave it out"
            )
        types = _types(body.embedding_types, body.output_dimension or service.space.dimension)
        where = Truncate((body.truncate or "END").lower())
        embedding = await service.embed(
            EmbedRequest(body.texts, role, where, body.output_dimension)
        )
        has_types = version != "1" or body.embedding_types is not None
        return await respond(
            request,
            embedding,
            lambda: _content(embedding, body.texts, types if has_types else None, version),
        )

    return routes


def _types(asked: list[_EmbeddingType] | None, dimension: int) -> list[str]:
    if asked == []:
        raise InvalidInputError("embedding_types: expected at least one, found none; ask for float")
    types = [str(name) for name in (["float"] if asked is None else asked)]
    for name in types:
        if name in ("int8", "uint8"):
            raise InvalidInputError(
                f"embedding_types: {name} needs a calibration that the embedding space does not "
                "hold; ask for float, base64, binary or ubinary"
            )
        if name in ("binary", "ubinary") and dimension % _BITS:
            raise InvalidInputError(
                f"embedding_types: {name} needs a dimension that is a multiple of {_BITS}, found "
                f"{dimension}; choose another output_dimension"
            )
    return types


def _ubinary(vectors: _Vectors) -> list[npt.NDArray[np.uint8]]:
    return list(np.packbits(vectors > 0, axis=1))  # (N, D / 8)


def _binary(vectors: _Vectors) -> list[npt.NDArray[np.int8]]:
    return [(row.astype(np.int16) - 128).astype(np.int8) for row in _ubinary(vectors)]


_WRITERS: dict[str, Callable[[_Vectors], list[Any]]] = {
    "float": list,
    "base64": lambda vectors: [base64_floats(vector) for vector in vectors],
    "ubinary": _ubinary,
    "binary": _binary,
}


def _content(
    embedding: Embedding, texts: list[str], types: list[str] | None, version: str
) -> dict[str, Any]:
    """Return the body of an answer: vectors by their types, or bare floats where there are none."""
    vectors = embedding.vectors
    return {
        "id": str(uuid.uuid4()),
        "texts": texts,
        "embeddings": (
            list(vectors) if types is None else {name: _WRITERS[name](vectors) for name in types}
        ),
        "response_type": "embeddings_floats" if types is None else "embeddings_by_type",
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"input_tokens": embedding.total_tokens},
            "truncated": embedding.truncated_inputs,
        },
    }
