"""One replica: loads the model, proves its space, warms up, and is its own HTTP ingress."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from itertools import count

from fastapi import FastAPI

from encoder.encoder import load_encoder
from serving.access_log import open_access_log
from serving.before_serve import guarded_by
from serving.corpus_check import check_corpus
from serving.embedding import EmbeddingService
from serving.http_app import build_http_app
from serving.metrics import Metrics
from serving.settings import ServingSettings

__all__ = ["QueryEndpoint"]

_logger = logging.getLogger("ray.serve")
_PUBLISH_INTERVAL_S = 1.0
_GC_THRESHOLDS = (50_000, 20, 50)
_GC_TICKS = 60
"""Intervals between two full collections."""


class QueryEndpoint:
    """The deployment's class; Serve calls everything below.

    Args:
        settings: What is served.
        num_threads: CPUs of this replica, unless the encoder's settings say otherwise.

    Attributes:
        service: What embeds.
    """

    def __init__(self, settings: ServingSettings, num_threads: int) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._access_log = open_access_log() if settings.access_log else None
        asked = settings.encoder
        if asked.num_threads is None:
            asked = asked.model_copy(update={"num_threads": num_threads})
        encoder = load_encoder(asked)
        if settings.corpus is not None:
            check_corpus(settings.corpus, encoder)
        self.service = EmbeddingService(encoder, settings, self._metrics)
        _logger.info("serving %s in space %s", encoder.provenance, encoder.space.summary())
        if not settings.api_keys:
            _logger.info("no keys are set (TWOFOLD_API_KEYS): whoever reaches it is answered")

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the web application; Serve calls it once, after the constructor."""
        app = build_http_app(
            self.service, self._settings, self._metrics, _version(), self._access_log
        )

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            await self.service.warm_up()
            _collect_garbage_seldom()
            publishing = asyncio.create_task(self._publish())
            try:
                with guarded_by(app.state.gate):
                    yield
                publishing.cancel()
                await self.service.close()
                self._metrics.publish(self.service.load)
            finally:
                if self._access_log is not None:
                    self._access_log.close()

        app.router.lifespan_context = lifespan
        return app

    async def check_health(self) -> None:
        """Run a forward; what it raises makes Serve replace this replica."""
        await self.service.check(waits=True)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load of this replica; see `LoadMeter.report`."""
        return self.service.load.report()

    async def _publish(self) -> None:
        """Once a second, publish metrics, flush the access log and free what is no longer needed.

        Any of it would pile up.
        """
        for tick in count(1):
            if self._access_log is not None:
                self._access_log.flush()
            try:
                self._metrics.publish(self.service.load)
            except Exception:
                _logger.exception("the metrics could not be published; the next second tries again")
            # All of it: what was under way at one look would be too old for a look at the young.
            if tick % _GC_TICKS == 0:
                gc.collect()
            await asyncio.sleep(_PUBLISH_INTERVAL_S)


def _collect_garbage_seldom() -> None:
    """Leave what is loaded to no later garbage collection, and let requests cause few of them.

    A full one looked at 520,000 objects of torch, transformers and Ray, and held every request up
    for 0.3 s. By Python's own thresholds (700 new objects) they took 28% of the event loop under
    overload. `QueryEndpoint._publish` looks for cycles once a minute instead: a body may
    hang in one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _version() -> str:
    try:
        return version("twofold")
    except PackageNotFoundError:
        return "0"
