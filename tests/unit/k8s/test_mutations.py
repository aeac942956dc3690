"""The checks of test_schemas.py catch what they are there for: one field changed at a time."""

from __future__ import annotations

import pytest

from support.core_schema import KUBERNETES_VERSIONS, core_problems
from support.crd_schema import crd_problems
from support.manifests import changed, rendered, the
from support.operator_rules import operator_problems

SERVICE = "query-service/cpu"
JOB = "embed-job/cpu"
HEAD = "spec.rayClusterConfig.headGroupSpec"
WORKER = "spec.rayClusterConfig.workerGroupSpecs.0"
WORKER_POD = f"{WORKER}.template.spec"


def ray_object(overlay: str):
    kind = "RayService" if "query" in overlay else "RayJob"
    return the(kind, rendered(overlay))


@pytest.mark.parametrize(
    ("overlay", "path", "value"),
    [
        (SERVICE, "spec.serveConfig", "unknown"),
        (SERVICE, f"{WORKER_POD}.containers.0.imagee", "unknown, deep"),
        (SERVICE, f"{WORKER}.minReplicas", "two"),
        (SERVICE, HEAD, None),
        (SERVICE, f"{WORKER}.groupName", None),
        (SERVICE, f"{WORKER_POD}.containers.0.name", None),
        (SERVICE, f"{HEAD}.rayStartParams.num-cpus", 0),
        (SERVICE, "spec.rayClusterConfig.authOptions.mode", "no such choice"),
        (SERVICE, "spec.managedBy", "breaks a CEL rule"),
        (JOB, "spec.entryPoint", "unknown"),
        (JOB, "spec.backoffLimit", "2"),
        (JOB, "spec.rayClusterSpec.headGroupSpec.template", None),
        (JOB, "spec.deletionStrategy", {"onSuccess": {"policy": "DeleteSelf"}}),  # CEL, too
    ],
)
def test_a_changed_ray_object_is_refused_by_its_schema(overlay, path, value):
    assert crd_problems(changed(ray_object(overlay), path, value)) != []


@pytest.mark.parametrize(
    ("overlay", "kind", "path", "value"),
    [
        (SERVICE, "PodDisruptionBudget", "spec.maxUnavailible", 1),
        (SERVICE, "PodDisruptionBudget", "spec.selector", "all"),
        (SERVICE, "StatefulSet", "spec.replicas", "one"),
        (SERVICE, "StatefulSet", "spec.template", None),
        (SERVICE, "Service", "spec.ports.0.port", None),
        (SERVICE, "ServiceAccount", "automountServiceAccountTokens", False),
        ("embed-schedule", "CronJob", "spec.schedule", None),
        ("embed-schedule", "CronJob", "spec.jobTemplate.spec.template.spec.container", []),
        ("embed-schedule", "Role", "rules.0.verbs", None),
        ("embed-schedule", "RoleBinding", "roleRef", None),
        ("local/shared", "Deployment", "spec.selector", None),
        ("local/shared", "PersistentVolumeClaim", "spec.accessModes", "ReadWriteOnce"),
        ("local/shared", "Namespace", "metadata.label", {}),
        ("monitoring", "ConfigMap", "data", ["x"]),
    ],
)
def test_a_changed_core_object_is_refused_by_its_schema(overlay, kind, path, value):
    item = next(item for item in rendered(overlay) if item["kind"] == kind)
    assert core_problems(item, KUBERNETES_VERSIONS[-1]) == []
    assert core_problems(changed(item, path, value), KUBERNETES_VERSIONS[-1]) != []


@pytest.mark.parametrize("field", ["podSelectr", "ingres"])
def test_a_misspelt_field_of_a_network_policy_is_refused_by_its_schema(field):
    item = next(item for item in rendered(SERVICE) if item["kind"] == "NetworkPolicy")
    assert core_problems(changed(item, f"spec.{field}", []), KUBERNETES_VERSIONS[-1]) != []


INCREMENTAL = {
    "type": "NewClusterWithIncrementalUpgrade",
    "clusterUpgradeOptions": {"stepSizePercent": 60, "maxSurgePercent": 50},
}


@pytest.mark.parametrize(
    ("overlay", "path", "value", "expected"),
    [
        (SERVICE, "metadata.name", "t" * 48, "48 characters"),
        (JOB, "metadata.name", "t" * 48, "48 characters"),
        (JOB, "metadata.name", "2fold", "DNS-1035"),
        (SERVICE, f"{WORKER_POD}.restartPolicy", "Always", "restartPolicy"),
        (SERVICE, f"{HEAD}.template.spec.restartPolicy", "Always", "restartPolicy"),
        (SERVICE, "spec.rayClusterConfig.rayVersion", None, "needs rayVersion"),
        (SERVICE, "spec.rayClusterConfig.rayVersion", "2.51.0", "needs Ray 2.52"),
        (SERVICE, "spec.rayClusterConfig.enableInTreeAutoscaling", False, "autoscalerOptions"),
        (SERVICE, f"{WORKER}.minReplicas", 99, "minReplicas 99"),
        (SERVICE, f"{WORKER}.maxReplicas", None, "must be given"),
        ("local/query-service", f"{WORKER}.replicas", None, "replicas must be given"),
        (SERVICE, f"{HEAD}.rayStartParams.labels", "a=b", "labels stand in"),
        (SERVICE, f"{HEAD}.rayStartParams.num-cpus", 0, "not all quoted"),
        (SERVICE, f"{HEAD}.resources", {"CPU": "1"}, "and in resources"),
        (SERVICE, f"{WORKER_POD}.containers.0.resources.limits.cpu", None, "counts CPUs"),
        (SERVICE, f"{WORKER_POD}.containers.0.env.0.name", "RAY_REDIS_ADDRESS", "operator's"),
        (SERVICE, f"{HEAD}.template.spec.containers.0.ports", [{"name": "serve"}], "head gives"),
        (SERVICE, f"{WORKER_POD}.containers.0.ports", [{"name": "x"}], "must give `serve`"),
        (SERVICE, "spec.upgradeStrategy", INCREMENTAL, "gatewayClassName"),
        (SERVICE, "spec.upgradeStrategy", INCREMENTAL, "above maxSurgePercent"),
        (SERVICE, "spec.upgradeStrategy.type", "Rolling", "is unknown"),
        (SERVICE, "spec.rayClusterDeletionDelaySeconds", -1, "must not be negative"),
        (JOB, "spec.shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished needs"),
        ("embed-schedule", "spec.shutdownAfterJobFinishes", False, "suspend needs"),
        (JOB, "spec.activeDeadlineSeconds", -1, "must be positive"),
        (JOB, "spec.backoffLimit", -1, "must not be negative"),
        (JOB, "spec.deletionStrategy", {"deletionRules": []}, "exclude each other"),
        (JOB, "spec.submissionMode", "SidecarMode", "takes no submitterPodTemplate"),
        (JOB, "spec.submitterPodTemplate.spec.restartPolicy", "Always", "the submitter"),
        (JOB, "spec.runtimeEnvYAML", "- a", "no mapping"),
        (JOB, "spec.entrypoint", "python -m x --input s3://b/*.parquet", "shell"),
        (JOB, "spec.entrypoint", "python -m x\n--input s3://b/", "shell"),
    ],
)
def test_what_the_operator_refuses_is_found(overlay, path, value, expected):
    item = ray_object(overlay)
    problems = operator_problems(changed(item, path, value))
    assert operator_problems(item) == []
    assert any(expected in problem for problem in problems), problems
