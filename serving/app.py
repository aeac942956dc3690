"""The Serve application: `serve run serving.app:build_app model=REF corpus=URI ...`.

A Serve config gives the same settings below `args:`. This module must not use
`from __future__ import annotations`: Ray looks at the builder's annotation to parse `args:`, and
would silently pass a plain dict for one that it cannot evaluate.
"""

import logging
import os
from typing import Any, cast

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from command_line.sources import from_environment, merge, nested
from encoder.errors import ModelLoadError
from encoder.model.reference import ModelReference, at_commit
from encoder.placement import device_with
from serving.autoscaling import ReplicasForLoad
from serving.endpoint import QueryEndpoint
from serving.replica_size import replica_size
from serving.settings import ScalingSettings, ServingSettings

__all__ = ["DEPLOYMENT_NAME", "alive_nodes", "build_app"]

DEPLOYMENT_NAME = "QueryEndpoint"
_logger = logging.getLogger("ray.serve")
_MAX_ONGOING_REQUESTS = 20_000
"""More than the connections that one HAProxy takes where `ray_environment` says how many."""
_HEALTH_CHECK_PERIOD_S = 10.0


def build_app(args: ServingSettings) -> serve.Application:
    """Return the application that the settings describe.

    Args:
        args: From flags, or from `args:` of a Serve config.
    """
    # Variables lie below: a key that the pods are given as a secret must not be passed over.
    values = nested(ServingSettings, from_environment(ServingSettings), where="TWOFOLD_* variables")
    merge(ServingSettings, values, args.model_dump(exclude_unset=True))
    args = ServingSettings(**values)
    size = replica_size(args.scaling, args.encoder, alive_nodes())
    # Replicas are in other folders than whoever gave a relative one.
    where = {
        "model": str(_at_commit(ModelReference.parse(args.encoder.model))),
        "device": device_with(args.encoder, size.num_gpus),
    }
    encoder = args.encoder.model_copy(update=where)
    args = args.model_copy(update={"encoder": encoder, "served_model_name": args.model_names})
    # Ray's annotation of `deployment` knows its use with arguments only.
    unnamed = cast(serve.Deployment, serve.deployment(serve.ingress()(QueryEndpoint)))
    deployment = unnamed.options(
        name=DEPLOYMENT_NAME,
        ray_actor_options={
            "num_cpus": size.num_cpus,
            "num_gpus": size.num_gpus,
            "runtime_env": {"env_vars": {"RAYON_NUM_THREADS": str(size.threads)}},
        },
        # Above our own admission: Serve's rejection is plain text, ours is what clients can read.
        max_ongoing_requests=_MAX_ONGOING_REQUESTS,
        graceful_shutdown_timeout_s=args.scaling.drain_timeout_s,
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=args.limits.request_timeout_s + _HEALTH_CHECK_PERIOD_S,
        # One line for each request is ours, with what was embedded in it.
        logging_config=LoggingConfig(enable_access_log=False),
        **_replicas(args.scaling),
    )
    return deployment.bind(args, size.threads)


def alive_nodes() -> list[dict[str, float]]:
    """Return what Ray counts on each node alive; this machine's CPUs where Ray is not up."""
    if not ray.is_initialized():
        return [{"CPU": float(os.cpu_count() or 1)}]
    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's, without types
    return [node["Resources"] for node in nodes if node["Alive"]]


def _at_commit(model: ModelReference) -> ModelReference:
    """Return the model at its commit of now: a replica that starts later must load the same."""
    try:
        return at_commit(model)
    except ModelLoadError as error:
        # Replicas may reach what cannot be reached from here, and say it if they do not.
        _logger.warning("each replica looks up the commit of %s by itself: %s", model, error)
        return model


def _replicas(scaling: ScalingSettings) -> dict[str, Any]:
    spread: dict[str, Any] = (
        {}
        if scaling.max_replicas_per_node is None
        else {"max_replicas_per_node": scaling.max_replicas_per_node}
    )
    if scaling.most_replicas == scaling.min_replicas:
        return {"num_replicas": scaling.min_replicas, **spread}
    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]  # Ray's, without types
        policy_function=ReplicasForLoad,
        policy_kwargs={
            "target_utilization": scaling.target_utilization,
            "target_queue_wait_s": scaling.target_queue_wait_s,
            "upscale_delay_s": scaling.upscale_delay_s,
            "downscale_delay_s": scaling.downscale_delay_s,
        },
    )
    return {
        **spread,
        "autoscaling_config": AutoscalingConfig(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.most_replicas,
            metrics_interval_s=scaling.metrics_interval_s,
            look_back_period_s=max(2.0, 2 * scaling.metrics_interval_s),
            # The policy keeps its own delays: Serve's would come on top of them.
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            policy=policy,
        ),
    }
