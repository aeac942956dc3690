"""The web application: the gate, the routes of every dialect, the docs. Knows nothing of Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from serving.dialects import cohere, health, openai, tei
from serving.dialects.health import HEALTH_PATHS
from serving.dialects.served_models import ServedModels
from serving.embedding import EmbeddingService
from serving.error_response import ErrorBody, shape_errors
from serving.gate import Gate
from serving.settings import ServingSettings
from serving.shortcut import Shortcut, answers_of

if TYPE_CHECKING:
    from serving.access_log import AccessLog
    from serving.metrics import Metrics

__all__ = ["build_http_app"]

_DESCRIPTION = """Embeds queries (by default) or documents in the space of one model.

Every response says in `x-embedding-role` and `x-embedding-space` how its vectors were made."""

_KEY = "bearerAuth"
_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request; the message says what to change"},
    "5XX": {"model": ErrorBody, "description": "The endpoint; try again, or tell its operator"},
}


def build_http_app(
    service: EmbeddingService,
    settings: ServingSettings,
    metrics: Metrics,
    version: str,
    access_log: AccessLog | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        service: Embeds.
        settings: Names, limits, keys.
        metrics: Is told of every response.
        version: Of this package, for the docs.
        access_log: Gets a line for each request; None writes none.
    """
    # The gate refuses what says that it is no JSON; a body that says nothing is taken for JSON. It
    # takes slashes away, too.
    app = FastAPI(
        title="twofold",
        description=_DESCRIPTION,
        version=version,
        strict_content_type=False,
        redirect_slashes=False,
    )
    models = ServedModels(settings)
    dialects = (
        openai.router(service, models),
        cohere.router(service, models),
        tei.router(service, models, settings),
    )
    for routes in (*dialects, health.router(service)):
        app.include_router(routes, responses=_ERRORS)
    shape_errors(app)
    posts = (route for routes in dialects for route in routes.routes)
    answers = answers_of(posts, service.check_count)
    gate = Gate(settings, metrics, access_log, service.check_room, frozenset(answers))
    # What is added later stands before what was added earlier.
    app.add_middleware(Shortcut, answers=answers)
    app.add_middleware(gate.before)
    app.state.gate = gate
    _describe(app, has_keys=bool(settings.api_keys))
    return app


def _describe(app: FastAPI, *, has_keys: bool) -> None:
    """Make the docs say what FastAPI does not know: our errors, and the gate's keys."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        operations = [each for path in schema["paths"].values() for each in path.values()]
        # FastAPI's own validation error: ours is 400, in another shape.
        for operation in operations:
            operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        if has_keys:
            schema["components"]["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{_KEY: []}]
            for path in HEALTH_PATHS & schema["paths"].keys():
                for operation in schema["paths"][path].values():
                    operation["security"] = []
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
