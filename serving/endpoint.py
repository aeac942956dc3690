"""One replica: loads the model, proves its space, warms up, and is its own HTTP ingress."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from encoder.corpus_space import read_corpus_space
from encoder.encoder import load_encoder
from encoder.errors import SpaceMismatchError
from encoder.space import EmbeddingSpace
from serving.embedding import EmbeddingService
from serving.http_app import build_http_app
from serving.metrics import Metrics
from serving.settings import ServingSettings

__all__ = ["QueryEndpoint", "check_corpus"]

_logger = logging.getLogger("ray.serve")
_GAUGE_INTERVAL_S = 1.0


class QueryEndpoint:
    """The deployment's class; Serve calls everything below.

    Args:
        settings: What is served.
        num_threads: CPUs of this replica, unless the encoder's settings say otherwise.
    """

    def __init__(self, settings: ServingSettings, num_threads: int) -> None:
        self._settings = settings
        self._num_threads = num_threads
        self._metrics = Metrics()
        self._service: EmbeddingService | None = None
        self._gauges: asyncio.Task[None] | None = None
        encoder = settings.encoder
        if encoder.num_threads is None:
            encoder = encoder.model_copy(update={"num_threads": num_threads})
        loaded = load_encoder(encoder)
        if settings.corpus is not None:
            check_corpus(settings.corpus, loaded.space)
        self._service = EmbeddingService(loaded, settings, self._metrics)
        _logger.info("serving %s in space %s", loaded.provenance, loaded.space.fingerprint)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the web application; Serve calls it once, after the constructor."""
        app = build_http_app(self.service, self._settings, self._metrics, _version())

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            await self.service.warm_up()
            self._gauges = asyncio.create_task(self._publish_gauges())
            yield
            self._gauges.cancel()
            await self.service.close()

        app.router.lifespan_context = lifespan
        return app

    @property
    def service(self) -> EmbeddingService:
        """What embeds."""
        assert self._service is not None
        return self._service

    async def check_health(self) -> None:
        """Run a forward; what it raises makes Serve replace this replica."""
        await self.service.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load of this replica; see `LoadMeter.report`."""
        return self.service.load.report()

    async def _publish_gauges(self) -> None:
        while True:
            self._metrics.gauge(self.service.load)
            await asyncio.sleep(_GAUGE_INTERVAL_S)


def check_corpus(corpus: str, space: EmbeddingSpace) -> None:
    """Check that a corpus' vectors can be compared with those of a space.

    Raises:
        SpaceMismatchError: They cannot; names the fields that differ.
        InvalidInputError: There is no such corpus.
    """
    theirs = read_corpus_space(corpus)
    differences = space.differences(theirs)
    if differences:
        fields = "; ".join(
            f"{name}: there {there!r}, here {here!r}" for name, (here, there) in differences.items()
        )
        raise SpaceMismatchError(
            f"{corpus} holds vectors of space {theirs.fingerprint}, this endpoint makes "
            f"{space.fingerprint}: {fields}. Serve the model and settings it was embedded with, or "
            "embed it again"
        )


def _version() -> str:
    try:
        return version("twofold")
    except PackageNotFoundError:
        return "0"
