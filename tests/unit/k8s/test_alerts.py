"""Alerts fire and are silent when they should, and all names in them are of metrics that exist.

That a live endpoint exports these names is shown by tests/integration/k8s.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.load import DEFAULT_QUEUE_WAIT_S
from serving.metrics import BUCKETS_S
from support.manifests import rendered, the, tool
from support.metric_names import METRIC_NAMES

CASES = [
    Path(__file__).with_name(name) for name in ("alert_cases.yaml", "alert_cases_of_days.yaml")
]

OF_SERVE = {
    "ray_serve_autoscaling_target_replicas",
    "ray_serve_deployment_replica_healthy",
    "ray_serve_http_request_latency_ms",
    "ray_serve_num_http_requests_total",
}
"""Ray Serve 2.60's, scraped from a live endpoint behind HAProxy."""
OF_THE_OPERATOR = {"kuberay_job_deployment_status", "kuberay_job_info", "kuberay_service_info"}
"""KubeRay 1.7's (ray-operator/controllers/ray/metrics)."""
OF_THE_CLUSTER = {"kube_cronjob_created"}
"""kube-state-metrics' (internal/store/cronjob.go; stable)."""


def rule_groups() -> list[dict[str, Any]]:
    return the("PrometheusRule", rendered("monitoring"))["spec"]["groups"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in rule_groups() for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads(the("ConfigMap", rendered("monitoring"))["data"]["dashboard.json"])


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def metric_names(query: str) -> set[str]:
    """Names that a query reads; of a histogram the name that it is defined by."""
    without_text = re.sub(r'"[^"]*"', '""', query)
    names = re.findall(r"\b(?:ray|kuberay|haproxy|kube)_\w+|\b\w+(?=[{\[])", without_text)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in rules()), *dashboard_queries()])
def test_every_metric_is_one_that_is_exported(query: str):
    ours = {f"ray_{name}" for name in METRIC_NAMES}
    names = metric_names(query)
    assert names
    assert names <= ours | OF_SERVE | OF_THE_OPERATOR | OF_THE_CLUSTER


def test_a_wrong_name_would_be_found():
    query = 'sum(rate(ray_twofold_request_total{reason="x"}[5m])) / ray_serve_nothing'
    assert metric_names(query) == {"ray_twofold_request_total", "ray_serve_nothing"}


def test_there_is_an_alert_for_what_users_notice():
    assert [rule["alert"] for rule in rules()] == [
        "TwofoldNoReplica",
        "TwofoldFewReplicas",
        "TwofoldSlow",
        "TwofoldQueue",
        "TwofoldRejects",
        "TwofoldErrors",
        "TwofoldEmbedFailed",
        "TwofoldCorpusStale",
        "TwofoldOperatorUnseen",
    ]
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent():
    tests = [
        check
        for cases in CASES
        for case in yaml.safe_load(cases.read_text(encoding="utf-8"))["tests"]
        for check in case["alert_rule_test"]
    ]
    alerts = {rule["alert"] for rule in rules()}
    assert {check["alertname"] for check in tests if check.get("exp_alerts")} == alerts
    assert {check["alertname"] for check in tests if not check.get("exp_alerts")} == alerts


def test_the_alert_on_waits_is_about_waits_that_admission_lets_happen():
    (queue,) = [rule for rule in rules() if rule["alert"] == "TwofoldQueue"]
    (threshold_s,) = re.findall(r"> ([\d.]+)$", queue["expr"])
    assert float(threshold_s) < DEFAULT_QUEUE_WAIT_S
    assert float(threshold_s) in BUCKETS_S


def promtool(*arguments: str, folder: Path) -> str:
    finished = subprocess.run(
        [tool("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_the_alerts_fire_and_are_silent_as_their_cases_say(tmp_path: Path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups()}))
    assert "SUCCESS" in promtool("check", "rules", "rules.yaml", folder=tmp_path)
    for cases in CASES:
        shutil.copy(cases, tmp_path)
        assert "SUCCESS" in promtool("test", "rules", cases.name, folder=tmp_path)


def test_the_dashboards_queries_parse(tmp_path: Path):
    records = [
        {"record": f"query:{number}", "expr": query}
        for number, query in enumerate(dashboard_queries())
    ]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]})
    )
    assert f"{len(records)} rules found" in promtool(
        "check", "rules", "rules.yaml", folder=tmp_path
    )


def test_grafanas_sidecar_finds_the_dashboard_and_its_panels_do_not_overlap():
    labels = the("ConfigMap", rendered("monitoring"))["metadata"]["labels"]
    assert labels["grafana_dashboard"] == "1"
    cells = [
        (x, y)
        for panel in dashboard()["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {panel["id"] for panel in dashboard()["panels"]} == set(range(1, 12))


def test_the_monitor_scrapes_ports_that_workers_declare():
    monitor = the("PodMonitor", rendered("monitoring"))["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    service = the("RayService", rendered("query-service/cpu"))["spec"]["rayClusterConfig"]
    template = service["workerGroupSpecs"][0]["template"]
    declared = {port["name"]: port for port in template["spec"]["containers"][0]["ports"]}
    assert wanted <= template["metadata"]["labels"].items()
    assert wanted <= service["headGroupSpec"]["template"]["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= set(declared)
    assert declared["haproxy"]["containerPort"] == 9101
