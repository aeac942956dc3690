"""Liveness and readiness, apart: live while the process answers, ready once a forward does.

text-embeddings-inference's `GET /health` is readiness, also below the addresses that say a role.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from encoder.space import Role
from serving.dialects.wire import json_response
from serving.embedding import EmbeddingService

__all__ = ["HEALTH_PATHS", "router"]

_LIVE, _READY, _TEI = "/health/live", "/health/ready", "/health"
_BELOW_ROLES = [f"/{role.value}{_TEI}" for role in Role]
HEALTH_PATHS = frozenset({_LIVE, _READY, _TEI, *_BELOW_ROLES})
"""What is open to all, and no line of the access log."""


def router(service: EmbeddingService) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["health"])

    @routes.get(_LIVE, summary="The process answers")
    async def live() -> Response:
        return json_response({"status": "live"})

    @routes.get(_READY, summary="A forward gives a vector")
    @routes.get(_TEI, summary="As /health/ready, where text-embeddings-inference has it")
    async def ready() -> Response:
        await service.check(waits=False)
        return json_response({"status": "ready", "embedding_space": service.space.fingerprint})

    for path in _BELOW_ROLES:
        routes.add_api_route(path, ready, include_in_schema=False)
    # Some monitors ask for the head alone.
    for path in HEALTH_PATHS:
        answer = live if path == _LIVE else ready
        routes.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)

    return routes
