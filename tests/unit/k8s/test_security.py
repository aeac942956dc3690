"""Rights of pods, who gets a token, what is open to the network: by test, not by eye."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.manifests import (
    K8S,
    OVERLAYS,
    RAY_KINDS,
    cluster_spec,
    containers,
    pod_specs,
    rendered,
    tool,
)

SECRET_NAME = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|CREDENTIAL", re.IGNORECASE)
OPERATOR, PROMETHEUS, ANYBODY = "kuberay-system", "monitoring", "somewhere"


def pods(overlay: str) -> list[tuple[str, dict[str, Any]]]:
    return [found for item in rendered(overlay) for found in pod_specs(item)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_runs_as_root_or_beside_the_hosts_own(overlay: str):
    for name, pod in pods(overlay):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["runAsGroup"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert all("hostPath" not in volume for volume in pod.get("volumes", [])), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_container_can_gain_rights_or_write_its_root(overlay: str):
    expected = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for name, pod in pods(overlay):
        for container in containers(pod):
            assert container["securityContext"] == expected, f"{name}/{container['name']}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_autoscaler_beside_ray_has_no_more_rights_than_ray(overlay: str):
    for item in rendered(overlay):
        if item["kind"] in RAY_KINDS and cluster_spec(item)["enableInTreeAutoscaling"]:
            spec = cluster_spec(item)
            ray = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
            assert spec["autoscalerOptions"]["securityContext"] == ray["securityContext"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_can_write_where_python_and_ray_do(overlay: str):
    for name, pod in pods(overlay):
        for container in containers(pod):
            home = [v["value"] for v in container.get("env", []) if v["name"] == "HOME"]
            written = {mount["mountPath"] for mount in container["volumeMounts"]}
            if container["image"].startswith("twofold"):
                assert home == ["/tmp"], f"{name}/{container['name']}"
                assert "/tmp" in written
            assert set(home) <= written


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_who_asks_the_api_server_has_a_token_of_it(overlay: str):
    for item in rendered(overlay):
        if item["kind"] == "ServiceAccount":
            assert item["automountServiceAccountToken"] is False
        for name, pod in pod_specs(item):
            asks = item["kind"] == "CronJob" or (
                name.endswith("/head") and cluster_spec(item)["enableInTreeAutoscaling"]
            )
            assert pod["automountServiceAccountToken"] is asks, name


def test_the_schedule_may_do_with_ray_jobs_what_it_does_and_nothing_else():
    (role,) = [item for item in rendered("embed-schedule") if item["kind"] == "Role"]
    (binding,) = [item for item in rendered("embed-schedule") if item["kind"] == "RoleBinding"]
    assert role["rules"] == [
        {
            "apiGroups": ["ray.io"],
            "resources": ["rayjobs"],
            "verbs": ["get", "list", "create", "delete"],
        }
    ]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "twofold-embed-schedule", "namespace": "twofold"}
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_manifest_holds_a_secret(overlay: str):
    objects = rendered(overlay)
    assert all(item["kind"] != "Secret" for item in objects)
    for item in objects:
        for name, pod in pod_specs(item):
            for container in containers(pod):
                for variable in container.get("env", []):
                    if SECRET_NAME.search(variable["name"]):
                        assert "secretKeyRef" in variable["valueFrom"], name
    text = yaml.safe_dump_all(objects)
    assert not re.search(r"api_keys|AKIA|BEGIN [A-Z ]*PRIVATE KEY|redis-password:", text)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_open_to_the_world(overlay: str):
    for item in rendered(overlay):
        assert item["kind"] not in ("Ingress", "Gateway", "HTTPRoute")
        if item["kind"] == "Service":
            assert item["spec"].get("type", "ClusterIP") == "ClusterIP"
        if item["kind"] in RAY_KINDS:
            assert "serveService" not in item["spec"]
            head = cluster_spec(item)["headGroupSpec"]
            assert head.get("serviceType", "ClusterIP") == "ClusterIP"
            assert not head.get("enableIngress", False)
        for name, pod in pod_specs(item):
            ports = [port for c in containers(pod) for port in c.get("ports", [])]
            assert all("hostPort" not in port for port in ports), name


def test_the_namespace_admits_restricted_pods_alone():
    for overlay in ("shared", "local/shared"):
        (namespace,) = [item for item in rendered(overlay) if item["kind"] == "Namespace"]
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", ["query-service/cpu", "query-service/gpu"])
def test_rays_own_ports_want_a_token(overlay: str):
    (service,) = [item for item in rendered(overlay) if item["kind"] == "RayService"]
    assert cluster_spec(service)["authOptions"] == {"mode": "token"}


# The network policy, asked as a network plugin would be.


def admits(overlay: str, policy: str, port: int, *, namespace: str, labels=None) -> bool:
    """Whether a policy lets a pod of that namespace with those labels reach a port."""
    (found,) = [
        item
        for item in rendered(overlay)
        if item["kind"] == "NetworkPolicy" and item["metadata"]["name"] == policy
    ]
    assert found["spec"]["policyTypes"] == ["Ingress"]
    return any(
        any(_comes_from(peer, namespace, labels or {}) for peer in rule["from"])
        and any(p["port"] <= port <= p.get("endPort", p["port"]) for p in rule["ports"])
        for rule in found["spec"]["ingress"]
    )


def _comes_from(peer: dict[str, Any], namespace: str, labels: dict[str, str]) -> bool:
    if "namespaceSelector" in peer:
        wanted = peer["namespaceSelector"].get("matchLabels", {})
        return wanted.items() <= {"kubernetes.io/metadata.name": namespace}.items()
    return namespace == "twofold" and peer["podSelector"]["matchLabels"].items() <= labels.items()


QUERY = {"app.kubernetes.io/component": "query-service", "ray.io/node-type": "worker"}


@pytest.mark.parametrize("overlay", ["query-service/cpu", "query-service/gpu"])
@pytest.mark.parametrize(
    ("port", "namespace", "labels", "is_let_in"),
    [
        (8404, ANYBODY, {}, False),  # HAProxy's statistics: nobody, not even its peers
        (8404, PROMETHEUS, {}, False),
        (8404, OPERATOR, {}, False),
        (8404, "twofold", QUERY, False),
        (9101, ANYBODY, {}, False),  # HAProxy's metrics: Prometheus
        (9101, "twofold", QUERY, False),
        (9101, PROMETHEUS, {}, True),
        (8080, PROMETHEUS, {}, True),
        (8080, ANYBODY, {}, False),
        (8265, OPERATOR, {}, True),  # the dashboard: the operator
        (8265, ANYBODY, {}, False),
        (8265, PROMETHEUS, {}, False),
        (6379, ANYBODY, {}, False),  # Ray itself: its own pods
        (10001, ANYBODY, {}, False),
        (6379, "twofold", QUERY, True),
        (6379, "twofold", {"app.kubernetes.io/component": "embed-job"}, False),
        (8000, ANYBODY, {}, True),  # requests
    ],
)
def test_the_network_lets_in_who_has_business_there(overlay, port, namespace, labels, is_let_in):
    assert admits(overlay, "twofold-query", port, namespace=namespace, labels=labels) is is_let_in


JOB = {"app.kubernetes.io/component": "embed-job"}


@pytest.mark.parametrize("overlay", ["embed-job/cpu", "embed-job/gpu", "embed-schedule"])
@pytest.mark.parametrize(
    ("port", "namespace", "labels", "is_let_in"),
    [
        (6379, "twofold", JOB, True),  # Ray itself: its own pods
        (10002, "twofold", JOB, True),
        (8265, "twofold", JOB, True),  # the submitter
        (6379, "twofold", QUERY, False),
        (6379, "twofold", {}, False),
        (10001, ANYBODY, {}, False),
        (8265, OPERATOR, {}, True),
        (8265, ANYBODY, {}, False),
        (6379, OPERATOR, {}, False),
        (8080, PROMETHEUS, {}, True),
        (8265, PROMETHEUS, {}, False),
        (8080, ANYBODY, {}, False),
    ],
)
def test_the_jobs_pods_are_reached_by_who_has_business_there(
    overlay, port, namespace, labels, is_let_in
):
    assert admits(overlay, "twofold-embed", port, namespace=namespace, labels=labels) is is_let_in


def test_redis_answers_the_endpoint_alone():
    overlay = "query-service/cpu"
    assert admits(overlay, "twofold-redis", 6379, namespace="twofold", labels=QUERY)
    assert not admits(overlay, "twofold-redis", 6379, namespace="twofold")
    assert not admits(overlay, "twofold-redis", 6379, namespace=ANYBODY)


@pytest.mark.parametrize(
    "overlay",
    ["query-service/cpu", "query-service/gpu", "embed-job/cpu", "embed-job/gpu", "embed-schedule"],
)
def test_policies_select_the_pods_they_speak_of(overlay: str):
    objects = rendered(overlay)
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in policies]
    templates = [item["spec"]["template"] for item in objects if item["kind"] == "StatefulSet"]
    for item in objects:
        if item["kind"] in RAY_KINDS:
            spec = cluster_spec(item)
            groups = (spec["headGroupSpec"], *spec["workerGroupSpecs"])
            templates += [group["template"] for group in groups]
            if item["kind"] == "RayJob":
                templates.append(item["spec"]["submitterPodTemplate"])
    assert len(templates) == 3
    for template in templates:
        labels = template["metadata"]["labels"].items()
        assert any(wanted.items() <= labels for wanted in selected)


@pytest.mark.parametrize("overlay", ["query-service/cpu", "query-service/gpu"])
def test_wherever_the_application_is_built_it_has_the_keys(overlay: str, tmp_path: Path):
    copied = tmp_path / "k8s"
    shutil.copytree(K8S, copied)
    kustomization = copied / "overlays" / overlay / "kustomization.yaml"
    text = kustomization.read_text(encoding="utf-8")
    assert "  # - ../../../components/api-keys" in text
    kustomization.write_text(
        text.replace("  # - ../../../components/api", "  - ../../../components/api")
    )
    finished = subprocess.run(
        [tool("kubectl"), "kustomize", str(kustomization.parent)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr

    (service,) = [
        item for item in yaml.safe_load_all(finished.stdout) if item["kind"] == "RayService"
    ]
    spec = cluster_spec(service)
    expected = {"secretKeyRef": {"name": "twofold-api-keys", "key": "keys"}}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (ray,) = group["template"]["spec"]["containers"]
        given = {variable["name"]: variable.get("valueFrom") for variable in ray["env"]}
        assert given["TWOFOLD_API_KEYS"] == expected
        assert len(given) == 11
