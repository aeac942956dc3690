"""The Ray cluster of a run: the one there is, or one started here."""

from __future__ import annotations

import logging
import os

import ray
from ray.exceptions import RayError

from command_line.boundary import keeping_sigterm
from command_line.cluster_address import why_unreachable
from encoder.errors import InvalidInputError, one_line
from pipelines.driver.pool import Pool, plan_pool
from pipelines.errors import ClusterError
from pipelines.settings import EmbedCorpusSettings
from pipelines.source.listing import is_local
from pipelines.source.sources import normalised
from pipelines.storage import Storage

__all__ = ["start_ray"]

_LOG = logging.getLogger(__name__)
_ANSWERS_WITHIN_S = 10.0
_STARTED_HERE = {"twofold": 1.0}
"""Marks the node of a cluster that is started here; nothing asks for it."""


def start_ray(settings: EmbedCorpusSettings, storage: Storage, *, units: int) -> Pool:
    """Connect to the cluster that there is, or start one here.

    Args:
        settings: What the user fixed of the pool.
        storage: The output folder.
        units: Units to embed.

    Returns:
        The actor pool that suits the cluster.

    Raises:
        InvalidInputError: Input or output is a folder of one of several nodes, an actor asks for
            more than this machine has, or nothing tells how many CPUs each is to have.
        ClusterError: The cluster cannot be joined, and none be started here.
    """
    joined = _connect()
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if len(alive) > 1 and not settings.shared_filesystem:
        _check_reached_by_all(settings, storage, len(alive))
    pool = plan_pool(settings, [node["Resources"] for node in alive], units=units)
    wanted = f"{pool.num_cpus:g} CPUs and {pool.num_gpus:g} GPUs"
    if not pool.fits_now and not joined:
        raise InvalidInputError(
            f"an actor needs {wanted}, and this machine has not as much; lower "
            "--num-cpus-per-actor or --num-gpus-per-actor"
        )
    if not pool.fits_now and settings.num_cpus_per_actor is None:
        raise InvalidInputError(
            f"no node that is alive can hold an actor with {pool.num_gpus:g} GPUs, so nothing "
            "tells how many CPUs one is to have (with a single one a GPU waits for the tokenizer); "
            "give --num-cpus-per-actor, for the nodes that will join"
        )
    if not pool.fits_now:
        _LOG.warning("no node has %s free of other use; waiting for one to join", wanted)
    if joined and settings.actors is None:
        _LOG.info(
            "the pool is sized by the %d nodes alive now; an elastic cluster needs --actors "
            "MIN:MAX",
            len(alive),
        )
    _LOG.info("%d to %d actors of %s", pool.min_actors, pool.max_actors, wanted)
    return pool


def _check_reached_by_all(settings: EmbedCorpusSettings, storage: Storage, nodes: int) -> None:
    """Refuse folders of this machine on a cluster of several."""
    local = [f"--input {uri}" for uri in settings.input if is_local(normalised(uri))]
    if storage.is_local:
        local.append(f"--output {storage.uri}")
    if local:
        raise InvalidInputError(
            f"expected an object-store URI on a cluster of {nodes} nodes, found a local folder: "
            f"{', '.join(local)}; each node would look into its own. Give --shared-filesystem if "
            "all nodes mount the same folder there"
        )


def _connect() -> bool:
    """Return whether a cluster was there; else one is started here."""
    if ray.is_initialized():
        return True
    with keeping_sigterm():
        return _connect_or_start()


def _connect_or_start() -> bool:
    _check_listens(os.environ.get("RAY_ADDRESS", ""))
    try:
        return _join_or_start()
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise ClusterError(
            f"Ray cannot be joined, or started here: {one_line(error)}; check RAY_ADDRESS, that "
            "the cluster is up, that its Ray and its Python are those of this environment, and its "
            "token (RAY_AUTH_MODE, RAY_AUTH_TOKEN)"
        ) from error


def _check_listens(address: str) -> None:
    """Refuse a host and port where nobody listens: Ray ends the process there, without a word."""
    if why := why_unreachable(address, within_s=_ANSWERS_WITHIN_S):
        raise ClusterError(
            f"expected a Ray cluster at RAY_ADDRESS {address}, found none ({why}); "
            "start it, correct the address (the head's port is 6379 unless it was chosen), or "
            "unset it to start Ray here"
        )


def _join_or_start() -> bool:
    try:
        # Ray finds a cluster by RAY_ADDRESS or by a file of `ray start`, and does not say which
        # way it went. But resources are refused for a cluster that is there.
        ray.init(resources=_STARTED_HERE, logging_level=logging.ERROR)
    except (ValueError, ConnectionAbortedError):  # the second: refused by a ray:// address
        ray.init(logging_level=logging.ERROR)
        return True
    return False
