"""The manifests of k8s/ as a cluster would be given them: rendered by `kubectl kustomize`."""

from __future__ import annotations

import copy
import functools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

__all__ = [
    "K8S",
    "OVERLAYS",
    "RAY_KINDS",
    "changed",
    "cluster_spec",
    "containers",
    "pod_specs",
    "ray_groups",
    "rendered",
    "the",
    "tool",
]

Manifest = dict[str, Any]

K8S = Path(__file__).resolve().parents[2] / "k8s"
OVERLAYS = sorted(
    str(file.parent.relative_to(K8S / "overlays"))
    for file in (K8S / "overlays").rglob("kustomization.yaml")
)
_CLUSTER_SPECS = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}
RAY_KINDS = tuple(_CLUSTER_SPECS)


def tool(name: str) -> str:
    """Return the path of a command, from this environment first; skip the test without it."""
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@functools.cache
def _text(overlay: str) -> str:
    finished = subprocess.run(
        [tool("kubectl"), "kustomize", str(K8S / "overlays" / overlay)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@functools.cache
def _parsed(overlay: str) -> list[Manifest]:
    return list(yaml.safe_load_all(_text(overlay)))


def rendered(overlay: str) -> list[Manifest]:
    """Return an overlay's objects; they are the caller's to change."""
    return copy.deepcopy(_parsed(overlay))


def the(kind: str, objects: list[Manifest]) -> Manifest:
    """Return the only object of a kind."""
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def changed(item: Manifest, path: str, value: object) -> Manifest:
    """Return an object with one field set, "a.0.b" its path; None drops the field."""
    whole = copy.deepcopy(item)
    *parents, last = path.split(".")
    place: Any = whole
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return whole


def cluster_spec(item: Manifest) -> Manifest:
    """Return the Ray cluster that a RayService or RayJob describes."""
    return item["spec"][_CLUSTER_SPECS[item["kind"]]]


def ray_groups(item: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yield head and worker groups of a RayService or RayJob, with their names."""
    spec = cluster_spec(item)
    yield "head", spec["headGroupSpec"]
    for group in spec.get("workerGroupSpecs", []):
        yield group["groupName"], group


def pod_specs(item: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yield every pod's spec that an object describes, with a name for messages."""
    kind, spec = item["kind"], item.get("spec", {})
    if kind in RAY_KINDS:
        for name, group in ray_groups(item):
            yield f"{kind}/{name}", group["template"]["spec"]
        if "submitterPodTemplate" in spec:
            yield f"{kind}/submitter", spec["submitterPodTemplate"]["spec"]
    elif kind in ("Deployment", "StatefulSet"):
        yield f"{kind}/{item['metadata']['name']}", spec["template"]["spec"]
    elif kind == "CronJob":
        pod = spec["jobTemplate"]["spec"]["template"]["spec"]
        yield f"{kind}/{item['metadata']['name']}", pod


def containers(pod: Manifest) -> list[Manifest]:
    """Return all containers of a pod, those that run first included."""
    return [*pod.get("initContainers", []), *pod["containers"]]
