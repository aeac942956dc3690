"""What KubeRay 1.7 refuses though its schema allows it, and what breaks later without a word.

The first kind is the operator's own validation (ray-operator/controllers/ray/utils/validation.go),
as far as our manifests use the fields; the second is what its pods and commands are built from.
Each rule is a message and a function that says whether it is broken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from support.manifests import cluster_spec, ray_groups

__all__ = ["operator_problems"]

Manifest = dict[str, Any]
Rules = dict[str, Callable[[Manifest], bool]]

_MOST_CHARACTERS = 47
"""Of a RayService's or RayJob's name: services are named after it, in 63 characters."""
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SHELL = re.compile(r"""[;&|<>$`"'\\*?(){}\[\]\n#~!]""")
_HEAD_PORTS = {"gcs-server", "dashboard", "client", "serve"}
_MANAGED_ENV = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME", "RAY_enable_autoscaler_v2"}
_UPGRADES = (None, "None", "NewCluster", "NewClusterWithIncrementalUpgrade")


def operator_problems(item: Manifest) -> list[str]:
    """Return what the operator would refuse or get wrong in a RayService or RayJob."""
    cluster = cluster_spec(item)
    of_kind = _JOB if item["kind"] == "RayJob" else _SERVICE
    problems = [
        *_broken(_NAME, item["metadata"]),
        *_broken(of_kind, item["spec"]),
        *_broken(_CLUSTER, cluster),
    ]
    for name, group in ray_groups(item):
        problems += [f"{name}: {problem}" for problem in _broken(_GROUP, group)]
    for group in cluster["workerGroupSpecs"]:
        problems += [f"{group['groupName']}: {problem}" for problem in _size(cluster, group)]
    return problems


def _broken(rules: Rules, part: Manifest) -> Iterator[str]:
    return (message for message, is_broken in rules.items() if is_broken(part))


def _size(cluster: Manifest, group: Manifest) -> Iterator[str]:
    low, high = group.get("minReplicas"), group.get("maxReplicas")
    if low is None or high is None:
        yield "minReplicas and maxReplicas must be given"
    elif not 0 <= low <= high:
        yield f"minReplicas {low} and maxReplicas {high}"
    elif not _is_elastic(cluster) and not low <= group.get("replicas", 0) <= high:
        yield "without autoscaler, replicas must be given"


def _is_elastic(cluster: Manifest) -> bool:
    return bool(cluster.get("enableInTreeAutoscaling"))


def _pod(group: Manifest) -> Manifest:
    return group["template"]["spec"]


def _ports(group: Manifest) -> set[str]:
    return {port["name"] for port in _pod(group)["containers"][0].get("ports", [])}


def _with_token(cluster: Manifest) -> bool:
    return cluster.get("authOptions", {}).get("mode") == "token"


def _restarts(cluster: Manifest) -> bool:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return any(_pod(group).get("restartPolicy", "Never") != "Never" for group in groups)


def _is_incremental(service: Manifest) -> bool:
    return service.get("upgradeStrategy", {}).get("type") == _UPGRADES[-1]


def _upgrade(service: Manifest) -> Manifest:
    return service["upgradeStrategy"].get("clusterUpgradeOptions", {})


_NAME: Rules = {
    "the name has 48 characters or more, 47 are allowed": lambda metadata: (
        len(metadata["name"]) > _MOST_CHARACTERS
    ),
    "the name is no DNS-1035 label": lambda metadata: not _DNS_1035.fullmatch(metadata["name"]),
}

_CLUSTER: Rules = {
    "token authentication needs rayVersion": lambda cluster: (
        _with_token(cluster) and "rayVersion" not in cluster
    ),
    "token authentication needs Ray 2.52": lambda cluster: (
        _with_token(cluster)
        and tuple(map(int, cluster.get("rayVersion", "9.9").split(".")[:2])) < (2, 52)
    ),
    "autoscalerOptions without enableInTreeAutoscaling": lambda cluster: (
        "autoscalerOptions" in cluster and not _is_elastic(cluster)
    ),
    "autoscaler v2 needs restartPolicy Never or none": lambda cluster: (
        cluster.get("autoscalerOptions", {}).get("version") == "v2" and _restarts(cluster)
    ),
    "the head gives ports, and not all that its service needs": lambda cluster: (
        bool(_ports(cluster["headGroupSpec"]))
        and not _ports(cluster["headGroupSpec"]) >= _HEAD_PORTS
    ),
}

_GROUP: Rules = {
    "resources stand in rayStartParams and in resources": lambda group: (
        bool(group.get("resources"))
        and bool({"num-cpus", "num-gpus", "memory", "resources"} & set(group["rayStartParams"]))
    ),
    "labels stand in rayStartParams": lambda group: "labels" in group["rayStartParams"],
    "rayStartParams are not all quoted": lambda group: any(
        not isinstance(value, str) for value in group["rayStartParams"].values()
    ),
    "a variable is the operator's": lambda group: any(
        variable["name"] in _MANAGED_ENV for variable in _pod(group)["containers"][0].get("env", [])
    ),
    "Ray counts CPUs by num-cpus or by the limit, and neither is given": lambda group: (
        "num-cpus" not in group["rayStartParams"]
        and "cpu" not in _pod(group)["containers"][0]["resources"].get("limits", {})
    ),
}

_JOB: Rules = {
    "ttlSecondsAfterFinished needs shutdownAfterJobFinishes": lambda job: (
        job.get("ttlSecondsAfterFinished", 0) > 0 and not job.get("shutdownAfterJobFinishes")
    ),
    "suspend needs shutdownAfterJobFinishes": lambda job: (
        bool(job.get("suspend")) and not job.get("shutdownAfterJobFinishes")
    ),
    "deletionStrategy and shutdownAfterJobFinishes exclude each other": lambda job: (
        "deletionStrategy" in job and bool(job.get("shutdownAfterJobFinishes"))
    ),
    "deadlines must be positive": lambda job: any(
        job.get(field, 1) <= 0 for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds")
    ),
    "backoffLimit must not be negative": lambda job: job.get("backoffLimit", 0) < 0,
    "SidecarMode takes no submitterPodTemplate": lambda job: (
        job.get("submissionMode") == "SidecarMode" and "submitterPodTemplate" in job
    ),
    "the submitter is a Job: its restartPolicy must be Never or OnFailure": lambda job: (
        "submitterPodTemplate" in job
        and job["submitterPodTemplate"]["spec"].get("restartPolicy") not in ("Never", "OnFailure")
    ),
    "runtimeEnvYAML is no mapping": lambda job: (
        not isinstance(yaml.safe_load(job.get("runtimeEnvYAML", "{}")), dict)
    ),
    "the entrypoint has characters that the submitter's shell would read": lambda job: bool(
        _SHELL.search(job["entrypoint"])
    ),
}

_SERVICE: Rules = {
    "the type of upgradeStrategy is unknown": lambda service: (
        service.get("upgradeStrategy", {}).get("type") not in _UPGRADES
    ),
    "an incremental upgrade needs the autoscaler": lambda service: (
        _is_incremental(service) and not _is_elastic(service["rayClusterConfig"])
    ),
    "an incremental upgrade needs a gatewayClassName": lambda service: (
        _is_incremental(service) and not _upgrade(service).get("gatewayClassName")
    ),
    "stepSizePercent is above maxSurgePercent": lambda service: (
        _is_incremental(service)
        and _upgrade(service).get("stepSizePercent", 0)
        > _upgrade(service).get("maxSurgePercent", 100)
    ),
    "rayClusterDeletionDelaySeconds must not be negative": lambda service: (
        service.get("rayClusterDeletionDelaySeconds", 0) < 0
    ),
    "workers that give ports must give `serve`, which their readiness probe asks": lambda service: (
        any(
            _ports(group) and "serve" not in _ports(group)
            for group in service["rayClusterConfig"]["workerGroupSpecs"]
        )
    ),
}
