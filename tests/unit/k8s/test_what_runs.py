"""What the manifests tell Ray, Serve and twofold is what they accept, and pods are large enough."""

from __future__ import annotations

import inspect
import pydoc
import re
import shlex
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from command_line.parse import parse_settings
from pipelines.pull import PullSettings
from pipelines.settings import EmbedCorpusSettings
from serving import before_serve
from serving.ray_environment import ray_environment
from serving.replica_size import replica_size
from serving.settings import ServingSettings
from support.manifests import (
    K8S,
    OVERLAYS,
    RAY_KINDS,
    cluster_spec,
    containers,
    pod_specs,
    ray_groups,
    rendered,
    the,
)

SERVICES = [name for name in OVERLAYS if "query-service" in name]
JOBS = [name for name in OVERLAYS if name.startswith("embed") or name.endswith("embed-job")]
MEBIBYTE = 2**20
MODELS = PurePosixPath("/models")


def ray_object(overlay: str) -> dict[str, Any]:
    (found,) = [item for item in rendered(overlay) if item["kind"] in RAY_KINDS]
    return found


def serve_config(overlay: str) -> dict[str, Any]:
    return yaml.safe_load(the("RayService", rendered(overlay))["spec"]["serveConfigV2"])


def serving_settings(overlay: str) -> ServingSettings:
    (application,) = serve_config(overlay)["applications"]
    return ServingSettings.model_validate(application["args"])


def job_settings(overlay: str) -> EmbedCorpusSettings:
    words = shlex.split(the("RayJob", rendered(overlay))["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "pipelines.embed_corpus"]
    return parse_settings(EmbedCorpusSettings, words[3:], prog="", description="")


def quantity(text: str) -> float:
    """CPUs, or MiB of memory."""
    factors = {"Gi": 1024.0, "Mi": 1.0, "m": 0.001}
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(text)).groups()
    return float(number) * factors.get(unit, 1.0)


def ray_resources(group: dict[str, Any]) -> dict[str, float]:
    """What Ray will count on a node of this group, as KubeRay tells it."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    cpus = group["rayStartParams"].get("num-cpus", limits.get("cpu"))
    return {"CPU": quantity(cpus), "GPU": quantity(limits.get("nvidia.com/gpu", "0"))}


def workers(overlay: str) -> dict[str, Any]:
    (group,) = cluster_spec(ray_object(overlay))["workerGroupSpecs"]
    return group


def constrained(package: str) -> str:
    text = (K8S.parent / "constraints.txt").read_text(encoding="utf-8")
    return re.search(rf"^{package}==(\S+)", text, re.MULTILINE)[1]


# The endpoint.


@pytest.mark.parametrize("overlay", SERVICES)
def test_serve_takes_the_config_and_knows_every_key_of_it(overlay: str):
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    config = serve_config(overlay)
    ServeDeploySchema.model_validate(config)
    # Its models pass over what they do not know.
    assert set(config) <= set(ServeDeploySchema.model_fields)
    assert set(config["http_options"]) <= set(HTTPOptionsSchema.model_fields)
    for application in config["applications"]:
        assert set(application) <= set(ServeApplicationSchema.model_fields)


@pytest.mark.parametrize("overlay", SERVICES)
def test_the_import_path_leads_to_a_builder_that_takes_the_settings(overlay: str):
    from importlib import import_module

    (application,) = serve_config(overlay)["applications"]
    module, _, name = application["import_path"].partition(":")
    (argument,) = inspect.signature(getattr(import_module(module), name)).parameters.values()
    assert argument.annotation is ServingSettings
    assert serving_settings(overlay).model_names == ("noinstruct",)


@pytest.mark.parametrize("overlay", SERVICES)
def test_every_replica_finds_a_worker_that_holds_it(overlay: str):
    settings, group = serving_settings(overlay), workers(overlay)
    scaling, node = settings.scaling, ray_resources(group)
    assert scaling.num_cpus_per_replica <= node["CPU"]
    assert replica_size(scaling, settings.encoder, [node]).fit(node) >= 1
    assert scaling.min_replicas <= group["minReplicas"]
    assert scaling.most_replicas <= group["maxReplicas"]


@pytest.mark.parametrize("overlay", ["query-service/cpu", "query-service/gpu"])
def test_a_lost_node_takes_one_replica_of_two(overlay: str):
    scaling = serving_settings(overlay).scaling
    assert scaling.min_replicas >= 2
    assert scaling.max_replicas_per_node == 1
    budget = the("PodDisruptionBudget", rendered(overlay))["spec"]
    # All else is reckoned from a scale, which a RayCluster has not: no pod could be evicted.
    assert budget.keys() == {"minAvailable", "selector"}
    assert budget["minAvailable"] == scaling.min_replicas - 1


@pytest.mark.parametrize("overlay", SERVICES)
def test_every_pod_of_the_endpoint_has_the_fast_ingress(overlay: str):
    service = the("RayService", rendered(overlay))
    for name, group in ray_groups(service):
        (ray,) = group["template"]["spec"]["containers"]
        values = {variable["name"]: variable.get("value") for variable in ray["env"]}
        assert values["RAY_SERVE_ENABLE_HA_PROXY"] == "1", name
        assert values["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1", name
        path = values["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
        assert pydoc.locate(path) is before_serve.middlewares, name
        limits = serving_settings(overlay).limits
        answer_s = limits.body_timeout_s + limits.request_timeout_s
        wanted = ray_environment({}, through_haproxy=True, answer_s=answer_s)
        # Other load balancers must notice a drain; how many files a pod may open is not known here.
        for of_one_machine in ("DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "HAPROXY_MAXCONN"):
            del wanted[f"RAY_SERVE_{of_one_machine}"]
        assert {name: values.get(name) for name in wanted} == wanted


# The corpus job.


@pytest.mark.parametrize("overlay", JOBS)
def test_twofold_embed_takes_the_entrypoint(overlay: str):
    settings = job_settings(overlay)
    assert all(uri.startswith("s3://") for uri in (*settings.input, settings.output))
    assert not settings.dry_run


@pytest.mark.parametrize("overlay", JOBS)
def test_every_actor_finds_a_worker_that_holds_it(overlay: str):
    settings, group = job_settings(overlay), workers(overlay)
    node = ray_resources(group)
    # Elastic clusters begin without workers: nothing can be derived from what is there.
    assert settings.actors is not None
    assert settings.num_cpus_per_actor == node["CPU"]
    assert (settings.num_gpus_per_actor or 0) == node["GPU"]
    assert settings.actors.max == group["maxReplicas"]


@pytest.mark.parametrize("overlay", ["embed-job/cpu", "embed-job/gpu", "embed-schedule"])
def test_a_run_with_nothing_to_do_starts_no_worker(overlay: str):
    assert workers(overlay)["minReplicas"] == 0
    assert cluster_spec(ray_object(overlay))["enableInTreeAutoscaling"] is True


def test_the_endpoint_serves_what_the_job_of_its_kind_writes():
    pairs = [("embed-job/cpu", "query-service/cpu"), ("embed-job/gpu", "query-service/gpu")]
    for job, service in [*pairs, ("local/embed-job", "local/query-service")]:
        assert serving_settings(service).corpus == job_settings(job).output
        assert serving_settings(service).encoder.model == job_settings(job).encoder.model


# Both.


@pytest.mark.parametrize("overlay", [*SERVICES, *JOBS])
def test_the_model_is_where_the_init_container_puts_it(overlay: str, monkeypatch):
    found = serving_settings(overlay) if overlay in SERVICES else job_settings(overlay)
    for name, group in ray_groups(ray_object(overlay)):
        (init,) = group["template"]["spec"]["initContainers"]
        for variable in init["env"]:
            monkeypatch.setenv(variable["name"], variable["value"])
        pull = parse_settings(PullSettings, [], prog="", description="")
        assert pull.to == found.encoder.model, name
        assert PurePosixPath(pull.to).parent == MODELS
        mounts = {mount["name"]: mount["mountPath"] for mount in init["volumeMounts"]}
        assert mounts["models"] == str(MODELS)


@pytest.mark.parametrize("overlay", [*SERVICES, *JOBS])
def test_ray_sees_the_model_read_only_and_asks_no_hub(overlay: str):
    for name, group in ray_groups(ray_object(overlay)):
        ray = group["template"]["spec"]["containers"][0]
        (mount,) = [mount for mount in ray["volumeMounts"] if mount["name"] == "models"]
        assert mount["readOnly"] is True, name
        assert {"name": "HF_HUB_OFFLINE", "value": "1"} in ray["env"], name


@pytest.mark.parametrize("overlay", [*SERVICES, *JOBS])
def test_the_versions_are_those_that_were_tested(overlay: str):
    assert cluster_spec(ray_object(overlay))["rayVersion"] == constrained("ray")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_has_a_version_and_ours_the_build_that_its_device_needs(overlay: str):
    version = re.search(
        r'^version = "(.*)"', (K8S.parent / "pyproject.toml").read_text(encoding="utf-8"), re.M
    )[1]
    build = "cuda" if overlay.endswith("gpu") else "cpu"
    images = [
        container["image"]
        for item in rendered(overlay)
        for _, pod in pod_specs(item)
        for container in containers(pod)
    ]
    ours = {image for image in images if image.startswith("twofold")}
    assert ours <= {f"twofold:{version}-{build}"}
    for image in images:
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+[-.\w]*", image), image


@pytest.mark.parametrize("overlay", [*SERVICES, *JOBS])
def test_the_object_store_fits_the_shared_memory_and_that_the_pod(overlay: str):
    for name, group in ray_groups(ray_object(overlay)):
        pod = group["template"]["spec"]
        (shm,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm"]
        store = int(group["rayStartParams"]["object-store-memory"]) / MEBIBYTE
        memory = quantity(pod["containers"][0]["resources"]["limits"]["memory"])
        assert store < quantity(shm["sizeLimit"]) < memory / 4, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_asks_for_what_it_needs_and_has_a_limit_of_memory(overlay: str):
    for item in rendered(overlay):
        for name, pod in pod_specs(item):
            for container in containers(pod):
                asked, limits = (container["resources"][key] for key in ("requests", "limits"))
                assert quantity(asked["memory"]) <= quantity(limits["memory"]), name
                assert quantity(asked["cpu"]) <= quantity(limits.get("cpu", asked["cpu"])), name
                gpus = [part.get("nvidia.com/gpu") for part in (asked, limits)]
                assert gpus[0] == gpus[1], name


@pytest.mark.parametrize("overlay", ["query-service/gpu", "embed-job/gpu"])
def test_a_gpu_is_asked_for_and_its_nodes_are_tolerated(overlay: str):
    pod = workers(overlay)["template"]["spec"]
    assert ray_resources(workers(overlay))["GPU"] == 1
    assert any(t["key"] == "nvidia.com/gpu" for t in pod["tolerations"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_a_pod_refers_to_is_in_the_overlay_or_shared(overlay: str):
    shared = "local/shared" if overlay.startswith("local") else "shared"
    there = {
        (item["kind"], item["metadata"]["name"]) for item in [*rendered(overlay), *rendered(shared)]
    }
    for item in rendered(overlay):
        for name, pod in pod_specs(item):
            for volume in pod.get("volumes", []):
                if "persistentVolumeClaim" in volume:
                    claim = volume["persistentVolumeClaim"]["claimName"]
                    assert ("PersistentVolumeClaim", claim) in there, name
                if "configMap" in volume:
                    assert ("ConfigMap", volume["configMap"]["name"]) in there, name
            if "serviceAccountName" in pod:
                assert ("ServiceAccount", pod["serviceAccountName"]) in there, name
            mounted = {m["name"] for c in containers(pod) for m in c.get("volumeMounts", [])}
            claims = item["spec"].get("volumeClaimTemplates", [])
            offered = {
                v["name"] for v in [*pod.get("volumes", []), *(c["metadata"] for c in claims)]
            }
            assert mounted <= offered, name


def test_every_secret_that_is_referred_to_is_made_by_the_runbook():
    runbook = (K8S / "README.md").read_text(encoding="utf-8")
    made = set(re.findall(r"create secret generic (\S+)", runbook))
    for overlay in OVERLAYS:
        text = yaml.safe_dump_all(rendered(overlay))
        named = re.findall(r"secret(?:KeyRef|Ref):\n\s+(?:key: \S+\n\s+)?name: (\S+)", text)
        assert set(named) <= made, overlay
