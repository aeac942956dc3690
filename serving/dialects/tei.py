"""text-embeddings-inference's API: `POST /embed` (and `/`), `GET /info`."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, StrictBool, StrictStr, field_validator

from encoder.errors import InvalidInputError
from serving.dialects.served_models import ServedModels
from serving.dialects.wire import Body, BodyRoute, PositiveInt, Texts, json_response, respond
from serving.embed_request import EmbedRequest, Truncate
from serving.embedding import EmbeddingService
from serving.request_record import record_of
from serving.settings import ServingSettings

__all__ = ["TeiEmbed", "router"]


class TeiEmbed(Body):
    """Body of `POST /embed`."""

    inputs: Texts = Field(description="Text or texts")
    truncate: StrictBool | None = Field(None, description="False refuses inputs that are too long")
    truncation_direction: Literal["left", "right"] = Field("right", description="What is cut off")
    normalize: StrictBool | None = Field(None, description="Must be as the space has it")
    prompt_name: StrictStr | None = Field(None, description="query, document, passage, ...")
    dimensions: PositiveInt | None = Field(None, description="Leading dimensions to keep")

    @field_validator("truncation_direction", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def where(self) -> Truncate:
        """What happens to long texts."""
        if self.truncate is False:
            return Truncate.NONE
        return Truncate.START if self.truncation_direction == "left" else Truncate.END


def router(service: EmbeddingService, models: ServedModels, settings: ServingSettings) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["text-embeddings-inference"], route_class=BodyRoute)

    vectors: dict[int | str, dict[str, Any]] = {200: {"model": list[list[float]]}}

    @routes.post("/embed", summary="As text-embeddings-inference does", responses=vectors)
    @routes.post("/", summary="For clients that are given a bare address", responses=vectors)
    async def embed(body: TeiEmbed, request: Request) -> Response:
        record_of(request.scope).dialect = "tei"
        _, role = models.choose(None, {"prompt_name": body.prompt_name})
        if body.normalize is not None and body.normalize != service.space.normalize:
            raise InvalidInputError(
                f"normalize: expected {str(service.space.normalize).lower()}, which this space "
                f"has, found {str(body.normalize).lower()}; leave it out"
            )
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        embedding = await service.embed(EmbedRequest(texts, role, body.where, body.dimensions))
        return await respond(request, embedding, lambda: list(embedding.vectors))

    @routes.get("/info", summary="The model, its embedding space, the limits")
    async def info() -> Response:
        return json_response(_info(service, models, settings))

    return routes


def _info(
    service: EmbeddingService, models: ServedModels, settings: ServingSettings
) -> dict[str, Any]:
    space, limits, provenance = service.space, settings.limits, service.encoder.provenance
    pooling = space.role(models.default_role).pooling.value
    return {
        "model_id": provenance.get("model"),
        "model_sha": provenance.get("revision"),
        "model_dtype": provenance.get("dtype"),
        "model_type": {"embedding": {"pooling": pooling}},
        "max_input_length": space.max_seq_length,
        "max_batch_tokens": service.encoder.max_concurrent_tokens,
        "max_client_batch_size": limits.max_inputs,
        "max_request_tokens": limits.max_request_tokens,
        "max_queued_tokens": limits.max_queued_tokens,
        "auto_truncate": True,
        "default_role": models.default_role.value,
        "embedding_space": {"fingerprint": space.fingerprint, **space.to_dict()},
        "corpus": settings.corpus,
        "provenance": provenance,
    }
