"""Every overlay renders, and an API server and the operator would take every object in it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.core_schema import KUBERNETES_VERSIONS, core_problems
from support.crd_schema import crd_problems
from support.manifests import K8S, OVERLAYS, RAY_KINDS, cluster_spec, rendered, the
from support.operator_rules import operator_problems

MONITORING = "monitoring.coreos.com"
"""Of the Prometheus operator: no schema of its kinds is at hand, see test_alerts.py."""

SERVICE = "query-service/cpu"
JOB = "embed-job/cpu"


def core_objects(overlay: str) -> list[dict[str, Any]]:
    return [
        item
        for item in rendered(overlay)
        if item["kind"] not in RAY_KINDS and not item["apiVersion"].startswith(MONITORING)
    ]


def ray_objects(overlay: str) -> list[dict[str, Any]]:
    return [item for item in rendered(overlay) if item["kind"] in RAY_KINDS]


def test_there_is_an_overlay_of_each_sort():
    assert {name.partition("/")[0] for name in OVERLAYS} == {
        "embed-job",
        "embed-schedule",
        "local",
        "monitoring",
        "query-service",
        "shared",
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_into_objects_of_one_namespace_and_one_name_each(overlay: str):
    objects = rendered(overlay)
    named = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert objects
    assert len(named) == len(set(named))
    spaces = {item["metadata"].get("namespace") for item in objects if item["kind"] != "Namespace"}
    assert spaces == {"twofold"}


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_core_objects_pass_the_schema_of_every_supported_kubernetes(overlay: str, version: str):
    problems = {
        item["metadata"]["name"]: core_problems(item, version) for item in core_objects(overlay)
    }
    assert {name: found for name, found in problems.items() if found} == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_objects_pass_schema_and_rules_of_their_definitions(overlay: str):
    for item in ray_objects(overlay):
        assert crd_problems(item) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_objects_pass_the_operators_own_rules(overlay: str):
    for item in ray_objects(overlay):
        assert operator_problems(item) == []


# What one file says and another must say, too.


def test_the_two_bases_say_the_same_of_what_they_share():
    service, job = (cluster_spec(*ray_objects(overlay)) for overlay in (SERVICE, JOB))
    heads = [spec["headGroupSpec"]["template"]["spec"] for spec in (service, job)]
    for field in ("securityContext", "volumes", "initContainers"):
        assert heads[0][field] == heads[1][field], field


def test_every_component_is_used_by_an_overlay():
    used = " ".join(
        file.read_text(encoding="utf-8") for file in (K8S / "overlays").rglob("kustomization.yaml")
    )
    folders = [folder.name for folder in (K8S / "components").iterdir()]
    assert [name for name in folders if name not in used] == []


def test_a_manifest_is_a_page_long():
    for file in K8S.rglob("*.yaml"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 150, file


def test_the_schedules_template_is_the_job_itself_but_suspended():
    job = the("RayJob", rendered(JOB))
    template = the("RayJob", rendered("embed-schedule"))
    assert template["metadata"]["name"] == "twofold-embed-template"
    assert template["spec"].pop("suspend") is True
    assert json.dumps(template["spec"]) == json.dumps(job["spec"])


def test_the_dashboards_and_alerts_name_no_host():
    for file in K8S.rglob("*"):
        if file.suffix in (".yaml", ".json"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"https?://(?!twofold-)", text), file
