"""The application on a cluster: deployed, watched, withdrawn; what Serve says of it is passed on.

Serve waits without a word for a node, for a replica that does not start, and for one that is ill.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from itertools import dropwhile

from ray import serve

from command_line.cluster_address import why_unreachable
from encoder.errors import (
    BackendError,
    InvalidInputError,
    ModelLoadError,
    SpaceMismatchError,
    TwofoldError,
    one_line,
)
from serving.app import DEPLOYMENT_NAME, alive_nodes, build_app
from serving.errors import ServeError
from serving.replica_size import replica_size
from serving.settings import ServingSettings

__all__ = ["WATCH_INTERVAL_S", "StatusWatch", "deploy", "while_ray_is_up", "withdraw"]

_logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 5.0
_RAY_WATCH_INTERVAL_S = 1.0
_RAY_ANSWERS_S = 5.0
_APP_NAME = "twofold"
_AS_USUAL = ("DEPLOYING", "RUNNING")
_SHOWN_CHARACTERS = 1500
_OF_REPLICAS: dict[str, type[TwofoldError]] = {
    kind.__name__: kind
    for kind in (SpaceMismatchError, ModelLoadError, BackendError, InvalidInputError)
}
"""Why a replica does not start, where that has an exit code of its own."""


class StatusWatch:
    """Logs each change of the application's status, with what its deployment says."""

    def __init__(self) -> None:
        self._last = ""
        self._has_told = False

    def look(self) -> None:
        """Log the status if it is another one than at the last look.

        Raises:
            ServeError: Serve or the application is gone, so that a supervisor notices.
        """
        try:
            found = serve.status().applications.get(_APP_NAME)
        except Exception as error:
            # Whatever Ray raises of a cluster that does not answer.
            raise ServeError(f"expected Serve to answer, found {one_line(error)}") from error
        status = "nothing" if found is None else str(found.status.value)
        if found is not None and status != "RUNNING":  # a message there is of scaling
            deployment = found.deployments.get(DEPLOYMENT_NAME)
            said = _said_in(deployment.message) if deployment else ""
            self._tell(f"{status}: {said}" if said else status)
        elif found is not None:
            self._tell(status)
        if status in ("nothing", "DEPLOY_FAILED", "NOT_STARTED", "DELETING"):
            raise ServeError(f"expected the application {_APP_NAME!r} to run, found {status}")

    def _tell(self, line: str) -> None:
        # What is as usual is news only after something that was not.
        if line != self._last and (line not in _AS_USUAL or self._has_told):
            _logger.warning("the application is %s", line)
            self._has_told = True
        self._last = line

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Look every few seconds, in a thread, while the caller waits for Serve."""
        is_over = threading.Event()

        def look() -> None:
            while not is_over.wait(WATCH_INTERVAL_S):
                with contextlib.suppress(ServeError):  # the caller is told by Serve
                    self.look()

        thread = threading.Thread(target=look, name="status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join(WATCH_INTERVAL_S)


def deploy(
    settings: ServingSettings, watch: StatusWatch, *, host: str, port: int, is_ours: bool
) -> None:
    """Deploy the application and return once it answers.

    Args:
        settings: What is served.
        watch: Looks meanwhile.
        host: Address to listen on.
        port: Port to listen on.
        is_ours: Whether Ray was started here, where no other node will join.

    Raises:
        TwofoldError: It does not start; of the kind that a replica has raised, or a ServeError.
    """
    _check_fits(settings, is_fixed=is_ours)
    try:
        serve.start(
            http_options={"host": host, "port": port},
            proxy_location="HeadOnly" if is_ours else "EveryNode",
        )
        with watch.looking():
            serve.run(build_app(settings), name=_APP_NAME, route_prefix="/")
    except TwofoldError:
        raise
    except Exception as error:
        why = _why_not_started(error)[:_SHOWN_CHARACTERS]
        kind = _OF_REPLICAS.get(why.partition(":")[0].rpartition(".")[2], ServeError)
        raise kind(f"expected the endpoint to start, found {why}") from error


@contextlib.contextmanager
def while_ray_is_up(address: str) -> Iterator[None]:
    """Interrupt the block where a Ray that was started here ends meanwhile.

    A signal for a whole group of processes ends Ray, too. Its client would wait for a minute and
    then end this process, and HAProxy would stay.

    Args:
        address: Where Ray listens, HOST:PORT.

    Raises:
        ServeError: Ray has ended, and with it the requests under way.
    """
    is_over, has_ended, waiting = threading.Event(), threading.Event(), threading.get_ident()

    def look() -> None:
        while not is_over.wait(_RAY_WATCH_INTERVAL_S):
            # A refused connection is told at once; one that is slow is no end.
            if why_unreachable(address, within_s=_RAY_ANSWERS_S) and not is_over.is_set():
                has_ended.set()
                signal.pthread_kill(waiting, signal.SIGINT)
                return

    thread = threading.Thread(target=look, name="ray", daemon=True)
    try:
        thread.start()
        yield
    except KeyboardInterrupt:
        if not has_ended.is_set():
            raise
        raise ServeError(
            "expected Ray to run until requests under way are finished, found that it has ended; "
            "send the signal to this process alone, not to its group (systemd: KillMode=mixed)"
        ) from None
    finally:
        is_over.set()
        thread.join(2 * _RAY_WATCH_INTERVAL_S)


def withdraw(*, is_ours: bool) -> bool:
    """Let requests under way end, and take the application off the cluster.

    Args:
        is_ours: Whether Ray was started here, so that Serve ends, too.

    Returns:
        Whether all of them ended in time.
    """
    try:
        # Drains behind the proxies, which `shutdown` would end at once.
        serve.delete(_APP_NAME)
        have_ended = True
    except TimeoutError:
        have_ended = False
    if is_ours:
        # Not where a second signal came meanwhile: it waits for the controller for half a minute.
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray's, without types
    return have_ended


def _check_fits(settings: ServingSettings, *, is_fixed: bool) -> None:
    """Refuse replicas that no node can hold; say so where nodes may join."""
    nodes, wanted = alive_nodes(), settings.scaling.min_replicas
    size = replica_size(settings.scaling, settings.encoder, nodes)
    if sum(size.fit(node) for node in nodes) >= wanted:
        return
    found = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    what = (
        f"{wanted} replicas of {size.num_cpus:g} CPUs and {size.num_gpus:g} GPUs, found "
        f"{found['CPU']:g} CPUs and {found['GPU']:g} GPUs"
    )
    if is_fixed:
        raise ServeError(
            f"expected room for {what}; lower --num-cpus-per-replica, --num-gpus-per-replica or "
            "--min-replicas, or raise --num-cpus"
        )
    _logger.warning("expected room for %s; waiting for nodes to join", what)


def _why_not_started(error: Exception) -> str:
    """Return what a replica said that did not start; Serve's own error only names its deployment.

    Args:
        error: What Serve raised.
    """
    try:
        deployments = serve.status().applications[_APP_NAME].deployments
        message = deployments[DEPLOYMENT_NAME].message
    except Exception:
        # Whatever Ray raises of a cluster that is gone, or Serve not up: then `error` is the story.
        message = ""
    return _raised_in(message) or _raised_in(str(error)) or one_line(error)


def _said_in(message: str) -> str:
    """Return a deployment's message in one line: the replica's own error where it has one."""
    return (_raised_in(message) or " ".join(message.split()))[:_SHOWN_CHARACTERS]


def _raised_in(message: str) -> str:
    """Return the replica's own error in a deployment's message; empty where there is none.

    Args:
        message: Of it, a traceback of tracebacks. The replica's own error, of one line or of
            several, comes behind the last frame, whose lines are indented.
    """
    lines = message.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if not frames:
        return ""
    said = list(dropwhile(lambda line: line.startswith(" "), lines[frames[-1] :]))
    return " ".join(" ".join(said).split())
