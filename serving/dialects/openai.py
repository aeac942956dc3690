"""OpenAI's embeddings API, with a role: `POST /v1/embeddings`, `GET /v1/models`.

The role comes from `input_type` (as NIM and Voyage have it), `task` (Jina) or the model's name with
`-query` or `-document` behind it, for clients that cannot send other fields.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, StrictBool, StrictStr, field_validator

from serving.dialects.served_models import ServedModels
from serving.dialects.wire import (
    Body,
    Inputs,
    PositiveInt,
    base64_floats,
    json_response,
    respond,
)
from serving.embed_request import Embedding, EmbedRequest, Truncate
from serving.embedding import EmbeddingService
from serving.request_record import record_of

__all__ = ["OpenAIEmbeddings", "router"]

_EncodingFormat = Literal["float", "base64"]


class OpenAIEmbeddings(Body):
    """Body of `POST /v1/embeddings`."""

    inputs_field: ClassVar[str | None] = "input"

    input: Inputs = Field(description="Text, texts, or token ids (see --accept-token-arrays)")
    model: StrictStr | None = Field(
        None, description="A served name, with or without -query or -document behind it"
    )
    encoding_format: _EncodingFormat | None = Field(None, description="float where absent")
    dimensions: PositiveInt | None = Field(None, description="Leading dimensions to keep")
    user: StrictStr | None = Field(None, description="Not used")
    input_type: StrictStr | None = Field(None, description="query, document, passage, ...")
    task: StrictStr | None = Field(None, description="As input_type, in Jina's words")
    truncate: StrictBool | Literal["NONE", "START", "END"] | None = Field(
        None,
        description="False or NONE (as NIM has it) refuses inputs that are too long; END where "
        "absent",
    )

    @property
    def where(self) -> Truncate:
        """What happens to long inputs."""
        if isinstance(self.truncate, str):
            return Truncate(self.truncate.lower())
        return Truncate.NONE if self.truncate is False else Truncate.END

    @field_validator("encoding_format", mode="before")
    @classmethod
    def _first_of_a_list(cls, value: object) -> object:
        # LiteLLM sends a list (litellm#28239).
        return value[0] if isinstance(value, list) and len(value) == 1 else value


class OpenAIEmbedding(BaseModel):
    """One input's vector and receipt."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Floats, or the base64 of float32")
    n_tokens: int = Field(description="Tokens that were encoded")
    truncated: bool = Field(description="Whether the input was cut")


class OpenAIUsage(BaseModel):
    """Tokens that were encoded, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddingList(BaseModel):
    """Answer of `POST /v1/embeddings`."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


def router(service: EmbeddingService, models: ServedModels) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["OpenAI"])
    created = int(time.time())

    @routes.post(
        "/v1/embeddings",
        summary="Embed texts as OpenAI does",
        responses={200: {"model": OpenAIEmbeddingList}},
    )
    async def create_embeddings(body: OpenAIEmbeddings, request: Request) -> Response:
        record = record_of(request.scope)
        record.dialect = "openai"
        served, role = models.choose(body.model, {"input_type": body.input_type, "task": body.task})
        record.role = role.value
        embedding = await service.embed(
            EmbedRequest(_as_list(body.input), role, body.where, body.dimensions)
        )
        return await respond(
            request, embedding, lambda: _content(embedding, served, body.encoding_format)
        )

    @routes.get("/v1/models", summary="Names that requests may give as model")
    async def list_models() -> Response:
        return json_response(
            {"object": "list", "data": [_model(name) for name in models.all_names]}
        )

    @routes.get("/v1/models/{model:path}", summary="One of them")
    async def get_model(model: str) -> Response:
        models.find(model)
        return json_response(_model(model))

    def _model(name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "twofold",
            "max_model_len": service.space.max_seq_length,
            "dimensions": service.space.dimension,
            "embedding_space": service.space.fingerprint,
            "role": (models.find(name)[1] or models.default_role).value,
        }

    return routes


def _as_list(inputs: Any) -> list[str] | list[list[int]]:  # noqa: ANN401 - pydantic checked it
    if isinstance(inputs, str) or (inputs and isinstance(inputs[0], int)):
        return [inputs]
    return list(inputs)


def _content(
    embedding: Embedding, model: str, encoding_format: _EncodingFormat | None
) -> dict[str, Any]:
    total = embedding.total_tokens
    is_base64 = encoding_format == "base64"
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64_floats(vector) if is_base64 else vector,
                "n_tokens": int(embedding.n_tokens[index]),
                "truncated": bool(embedding.truncated[index]),
            }
            for index, vector in enumerate(embedding.vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": total, "total_tokens": total},
    }
