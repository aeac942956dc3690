"""text-embeddings-inference's API: `POST /embed` (and `/`), `GET /info`.

Each route is there once more below `/query` and `/document`: a client that cannot send a role is
given an address that says it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, StrictBool, StrictStr, field_validator

from encoder.errors import InvalidInputError
from encoder.space import Role
from serving.dialects.served_models import ServedModels
from serving.dialects.wire import Body, PositiveInt, Texts, json_response, respond
from serving.embed_request import EmbedRequest, Truncate
from serving.embedding import EmbeddingService
from serving.request_record import record_of
from serving.settings import ServingSettings

__all__ = ["TeiEmbed", "router"]

_NORMALIZE = {
    True: "normalize: expected true, as this space has it, found false; send true or null "
    "(Haystack: normalize=True)",
    False: "normalize: expected false, as this space has it, found true; send false or null "
    "(Haystack: normalize=False)",
}
"""What is said where a request wants it otherwise, by what the space has."""


class TeiOptions(Body):
    """What the hub's own API takes of every request; here it changes nothing."""

    wait_for_model: StrictBool | None = Field(None, description="Not used")
    use_gpu: StrictBool | None = Field(None, description="Not used")
    use_cache: StrictBool | None = Field(None, description="Not used")


class TeiEmbed(Body):
    """Body of `POST /embed`."""

    inputs_field: ClassVar[str | None] = "inputs"

    inputs: Texts = Field(description="Text or texts")
    truncate: StrictBool | None = Field(None, description="False refuses inputs that are too long")
    truncation_direction: Literal["left", "right"] | None = Field(
        None, description="What is cut off; right where absent"
    )
    normalize: StrictBool | None = Field(None, description="Must be as the space has it")
    prompt_name: StrictStr | None = Field(None, description="query, document, passage, ...")
    dimensions: PositiveInt | None = Field(None, description="Leading dimensions to keep")
    options: TeiOptions | None = Field(
        None, description="Not used; clients of the hub's own API (Weaviate, LiteLLM) send it"
    )

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
    routes = APIRouter(tags=["text-embeddings-inference"])
    for address_role in (None, *Role):
        _add_routes(routes, address_role, service, models, settings)
    return routes


def _add_routes(
    routes: APIRouter,
    address_role: Role | None,
    service: EmbeddingService,
    models: ServedModels,
    settings: ServingSettings,
) -> None:
    """Add the routes below a role's address; None: those of clients that say it, or do not care."""
    said_by_address = address_role.value if address_role else None
    prefix = f"/{said_by_address}" if said_by_address else ""
    docs: dict[str, Any] = {
        "description": "Also below `/query` and `/document`, where the address says the role.",
        "include_in_schema": address_role is None,
    }
    vectors: dict[int | str, dict[str, Any]] = {200: {"model": list[list[float]]}}

    @routes.post(
        f"{prefix}/embed", summary="As text-embeddings-inference does", responses=vectors, **docs
    )
    @routes.post(
        prefix or "/",
        summary="For clients that are given a bare address",
        responses=vectors,
        **docs,
    )
    async def embed(body: TeiEmbed, request: Request) -> Response:
        record = record_of(request.scope)
        record.dialect = "tei"
        words = {"prompt_name": body.prompt_name, "the address": said_by_address}
        _, role = models.choose(None, words)
        record.role = role.value
        if body.normalize is not None and body.normalize != service.space.normalize:
            raise InvalidInputError(_NORMALIZE[service.space.normalize])
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        embedding = await service.embed(EmbedRequest(texts, role, body.where, body.dimensions))
        return await respond(request, embedding, lambda: list(embedding.vectors))

    @routes.get(f"{prefix}/info", summary="The model, its embedding space, the limits", **docs)
    async def info() -> Response:
        return json_response(_info(service, models, settings, address_role))


def _info(
    service: EmbeddingService,
    models: ServedModels,
    settings: ServingSettings,
    address_role: Role | None,
) -> dict[str, Any]:
    space, limits, provenance = service.space, settings.limits, service.encoder.provenance
    default_role = address_role or models.default_role
    pooling = space.role(default_role).pooling.value
    return {
        "model_id": settings.model_names[0],
        "model_sha": provenance.get("revision"),
        "model_dtype": provenance.get("dtype"),
        "model_type": {"embedding": {"pooling": pooling}},
        "max_input_length": space.max_seq_length,
        "max_batch_tokens": service.encoder.max_concurrent_tokens,
        "max_client_batch_size": limits.max_inputs,
        "max_request_tokens": limits.max_request_tokens,
        "max_queued_tokens": limits.max_queued_tokens,
        "auto_truncate": True,
        "default_role": default_role.value,
        "embedding_space": {"fingerprint": space.fingerprint, **space.to_dict()},
        "corpus": settings.corpus,
        "provenance": provenance,
    }
