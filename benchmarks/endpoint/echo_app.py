"""An empty Serve application: what a request costs before anything is embedded.

    python -m benchmarks.endpoint.echo_app PORT

The same Ray, ingress (HAProxy), throughput-optimised mode and deployment options as `twofold
serve`, one replica, and a FastAPI route that returns a small JSON.
"""

import os
import sys
import time

__all__ = ["main"]

_MODE = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
}


def main(port: int) -> None:
    """Serve until the process is ended."""
    os.environ.update(_MODE)
    # Imported only now: Ray reads these variables when it is imported.
    import ray
    from fastapi import FastAPI
    from ray import serve
    from ray.serve.schema import LoggingConfig

    routes = FastAPI()

    @routes.post("/v1/embeddings")
    async def echo() -> dict[str, bool]:
        return {"embedded": False}

    @serve.deployment(
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=1_000,
        logging_config=LoggingConfig(enable_access_log=False),
    )
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
