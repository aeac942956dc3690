"""An empty Serve application: what a request costs before anything is embedded.

    python -m benchmarks.endpoint.echo_app PORT

The same Ray, ingress (HAProxy), throughput-optimised mode, variables and requests under way as
`twofold serve` with its default limits has, by its own function and constant; one replica, and a
FastAPI route that returns a small JSON. What `twofold serve` puts in front of Serve
(`serving.before_serve`) is left out: it is the endpoint's work, not what the endpoint stands on.
"""

import os
import sys
import time
from collections.abc import MutableMapping
from typing import Any

from serving.ray_environment import ray_environment
from serving.settings import LimitSettings

__all__ = ["deployment_options", "main", "set_variables"]

_BEFORE_SERVE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"


def set_variables(environment: MutableMapping[str, str]) -> None:
    """Set what `twofold serve` sets, except for its own code in front of Serve."""
    limits = LimitSettings()
    answer_s = limits.body_timeout_s + limits.request_timeout_s
    environment.update(ray_environment(environment, through_haproxy=True, answer_s=answer_s))
    del environment[_BEFORE_SERVE]


def deployment_options() -> dict[str, Any]:
    """Return the options of the deployment; those that a request meets are the endpoint's."""
    from ray.serve.schema import LoggingConfig

    from serving import app

    return {
        "ray_actor_options": {"num_cpus": 1},
        # Not offered by the module; a number of our own was a twentieth of it.
        "max_ongoing_requests": app._MAX_ONGOING_REQUESTS,
        "logging_config": LoggingConfig(enable_access_log=False),
    }


def main(port: int) -> None:
    """Serve until the process is ended."""
    set_variables(os.environ)
    # Imported only now: Ray reads these variables when it is imported.
    import ray
    from fastapi import FastAPI
    from ray import serve

    routes = FastAPI()

    @routes.post("/v1/embeddings")
    async def echo() -> dict[str, bool]:
        return {"embedded": False}

    @serve.deployment(**deployment_options())
    @serve.ingress(routes)
    class Echo:
        """Nothing but the route."""

    ray.init(address="local", log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    # Serve's decorator gives the class its `bind`.
    serve.run(Echo.bind(), name="echo", route_prefix="/")  # type: ignore[attr-defined]
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(int(sys.argv[1]))
