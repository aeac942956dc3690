"""What a replica takes of a cluster, and on which device it then encodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from encoder.settings import EncoderSettings
from serving import app
from serving.replica_size import ReplicaSize, replica_size
from serving.settings import ScalingSettings, ServingSettings


def size_of(
    *nodes: Mapping[str, float], encoder: Mapping[str, object] | None = None, **scaling: object
) -> ReplicaSize:
    return replica_size(ScalingSettings(**scaling), EncoderSettings(**(encoder or {})), nodes)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([], (1, 0)),
        ([{"CPU": 2.0}], (2, 0)),
        ([{"CPU": 64.0}, {"CPU": 2.0}], (4, 0)),
        ([{"memory": 1e9}, {"CPU": 3.0}], (3, 0)),
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 2.0}], (4, 1)),
    ],
)
def test_left_open_it_takes_four_cpus_or_fewer_and_a_gpu_where_there_is_one(nodes, expected):
    size = size_of(*nodes)
    assert (size.num_cpus, size.num_gpus) == expected


@pytest.mark.parametrize("encoder", [{"device": "cpu"}, {"backend": "openvino"}, {"dtype": "int8"}])
def test_an_encoder_that_runs_on_cpus_reserves_no_gpu(encoder):
    assert size_of({"CPU": 8.0, "GPU": 1.0}, encoder=encoder).num_gpus == 0


def test_what_is_set_is_kept():
    size = size_of({"CPU": 8.0, "GPU": 1.0}, num_cpus_per_replica=1.5, num_gpus_per_replica=0.25)
    assert size == ReplicaSize(1.5, 0.25)
    assert size.threads == 1


@pytest.mark.parametrize(
    ("size", "fit"),
    [
        (ReplicaSize(2, 0), 4),
        (ReplicaSize(2, 0.25), 4),
        (ReplicaSize(1, 0.25), 4),
        (ReplicaSize(1, 1), 1),
        (ReplicaSize(9, 0), 0),
    ],
)
def test_a_node_holds_as_many_as_fit_by_both(size, fit):
    assert size.fit({"CPU": 8.0, "GPU": 1.0}) == fit
    assert size.fit({"CPU": 8.0}) == (0 if size.num_gpus else fit)


@pytest.mark.parametrize(
    ("given", "gpus", "device"),
    [
        # Where PyTorch cannot use it, that is an error and not a replica on CPUs.
        ({}, 1, "cuda"),
        ({"num_gpus_per_replica": 0.5}, 0.5, "cuda"),
        # Ray would show each of them the first GPU.
        ({"num_gpus_per_replica": 0}, 0, "cpu"),
        ({"num_gpus_per_replica": 0, "device": "cuda"}, 0, "cuda"),
        ({"device": "cpu"}, 0, "cpu"),
    ],
)
def test_a_replica_that_reserves_no_gpu_takes_none_unless_one_is_named(
    monkeypatch, given, gpus, device
):
    monkeypatch.setattr(app, "alive_nodes", lambda: [{"CPU": 8.0, "GPU": 1.0}])
    deployment = app.build_app(ServingSettings(model="org/x", **given))._bound_deployment

    settings, threads = deployment.init_args
    assert deployment.ray_actor_options["num_gpus"] == gpus
    assert (settings.encoder.device, threads) == (device, 4)
    assert settings.encoder.model == "org/x"


def test_variables_lie_below_what_an_application_is_given(monkeypatch):
    """As the pods' environment beside `args:` of a Serve config, in whatever shape each is."""
    monkeypatch.setattr(app, "alive_nodes", lambda: [{"CPU": 8.0}])
    monkeypatch.setenv("TWOFOLD_MODEL", "org/variable")
    monkeypatch.setenv("TWOFOLD_MAX_INPUTS", "7")
    monkeypatch.setenv("TWOFOLD_MAX_REPLICAS", "3")
    settings, _ = app.build_app(ServingSettings())._bound_deployment.init_args
    assert (settings.encoder.model, settings.limits.max_inputs) == ("org/variable", 7)
    assert settings.scaling.most_replicas == 3
    given = ServingSettings(model="org/given", min_replicas=2)
    settings, _ = app.build_app(given)._bound_deployment.init_args
    assert (settings.encoder.model, settings.limits.max_inputs) == ("org/given", 7)
    assert (settings.scaling.min_replicas, settings.scaling.most_replicas) == (2, 3)


def test_a_replica_that_starts_later_loads_the_commit_of_now(monkeypatch):
    monkeypatch.setattr(app, "alive_nodes", lambda: [{"CPU": 8.0}])
    monkeypatch.setattr(app, "at_commit", lambda model: replace(model, revision="a" * 40))
    settings, _ = app.build_app(ServingSettings(model="org/x@v2"))._bound_deployment.init_args
    assert settings.encoder.model == f"org/x@{'a' * 40}"
    assert settings.model_names == ("org/x@v2",)


def test_a_replica_finds_a_folder_that_was_named_from_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(app, "alive_nodes", lambda: [{"CPU": 8.0}])
    monkeypatch.chdir(tmp_path)
    built = app.build_app(ServingSettings(model="./tiny"))._bound_deployment
    settings, _ = built.init_args
    assert settings.encoder.model == str(tmp_path / "tiny")
    # Requests name it as it was named.
    assert settings.model_names == ("./tiny",)
