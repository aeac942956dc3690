"""Liveness and readiness, apart: live while the process answers, ready once a forward does."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serving.dialects.wire import json_response
from serving.embedding import EmbeddingService

__all__ = ["HEALTH_PREFIX", "router"]

HEALTH_PREFIX = "/health"


def router(service: EmbeddingService) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["health"])

    @routes.get(f"{HEALTH_PREFIX}/live", summary="The process answers")
    async def live() -> Response:
        return json_response({"status": "live"})

    @routes.get(f"{HEALTH_PREFIX}/ready", summary="A forward gives a vector")
    async def ready() -> Response:
        await service.check()
        return json_response({"status": "ready", "embedding_space": service.space.fingerprint})

    return routes
