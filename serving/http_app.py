"""The web application: the gate, the routes of every dialect, the docs. Knows nothing of Ray."""

from __future__ import annotations

from fastapi import FastAPI

from serving.dialects import cohere, health, openai, tei
from serving.dialects.served_models import ServedModels
from serving.embedding import EmbeddingService
from serving.error_response import shape_errors
from serving.gate import Gate
from serving.metrics import Metrics
from serving.settings import ServingSettings

__all__ = ["build_http_app"]

_DESCRIPTION = """Embeds queries (by default) or documents in the space of one model.

Every response says in `x-embedding-role` and `x-embedding-space` how its vectors were made."""


def build_http_app(
    service: EmbeddingService, settings: ServingSettings, metrics: Metrics, version: str
) -> FastAPI:
    """Return the application.

    Args:
        service: Embeds.
        settings: Names, limits, keys.
        metrics: Is told of every response.
        version: Of this package, for the docs.
    """
    app = FastAPI(title="twofold", description=_DESCRIPTION, version=version)
    models = ServedModels(settings)
    for routes in (
        openai.router(service, models),
        cohere.router(service, models),
        tei.router(service, models, settings),
        health.router(service),
    ):
        app.include_router(routes)
    shape_errors(app)
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    return app
