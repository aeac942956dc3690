"""The endpoint's settings are the same from flags, variables and a Serve config's `args:`."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from command_line.parse import parse_settings
from command_line.sources import groups
from encoder.errors import InvalidInputError
from encoder.settings import BackendName
from encoder.space import Pooling, Role
from serving.serve import ServeCommandSettings
from serving.settings import ScalingSettings, ServingSettings

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TWOFOLD_"):
            monkeypatch.delenv(name)


def parsed(*argv: str) -> ServingSettings:
    return parse_settings(ServingSettings, argv, prog="twofold serve", description="")


def test_flat_and_nested_args_of_a_serve_config_are_the_same_settings():
    flat = {
        "model": "org/name",
        "backend": "torch",
        "query_pooling": "mean",
        "max_inputs": 7,
        "max_replicas": 3,
        "corpus": "out/",
        "default_role": "document",
    }
    nested = {
        "encoder": {"model": "org/name", "backend": "torch", "query_pooling": "mean"},
        "limits": {"max_inputs": 7},
        "scaling": {"max_replicas": 3},
        "corpus": "out/",
        "default_role": "document",
    }
    dashed = {name.replace("_", "-"): value for name, value in flat.items()}

    settings = ServingSettings.model_validate(flat)

    assert settings == ServingSettings.model_validate(nested)
    assert settings == ServingSettings.model_validate(dashed)
    assert settings == ServingSettings(**flat)
    assert settings.encoder.model == "org/name"
    assert settings.encoder.backend is BackendName.TORCH
    assert settings.encoder.query_pooling is Pooling.MEAN
    assert settings.limits.max_inputs == 7
    assert settings.scaling.max_replicas == 3
    assert settings.default_role is Role.DOCUMENT


def test_some_may_stand_flat_and_others_in_their_group():
    settings = ServingSettings.model_validate({"model": "a", "encoder": {"device": "cpu"}})

    assert (settings.encoder.model, settings.encoder.device) == ("a", "cpu")


def test_nothing_given_is_the_default_model_on_one_replica_for_queries():
    settings = ServingSettings()

    assert settings.scaling.most_replicas == 1
    assert settings.default_role is Role.QUERY
    assert settings.model_names == (settings.encoder.model,)
    assert not settings.accept_token_arrays


def test_a_wait_that_would_add_replicas_matters_only_where_they_may_be_added():
    assert ServingSettings(max_replicas=2).scaling.target_queue_wait_s == 0.1
    assert ServingSettings(max_queue_wait_s=0.05).limits.max_queue_wait_s == 0.05
    assert ServingSettings(max_replicas=2, max_queue_wait_s=0.2, target_queue_wait_s=0.19)


@pytest.mark.parametrize("model", [ServingSettings, ServeCommandSettings])
def test_a_flat_name_belongs_to_one_group_only(model: type[ServingSettings]):
    names = [name for group in groups(model).values() for name in group.model_fields]
    names += [name for name in model.model_fields if name not in groups(model)]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "args",
    [
        {"modle": "x"},
        {"encoder": {"modle": "x"}},
        {"limits": {"max_replicas": 2}},
        {"port": 8000},
        {"max_inputs": 0},
        {"max_body_bytes": -1},
        {"request_timeout_s": 0},
        {"target_utilization": 1.5},
        {"default_role": "passage"},
        {"min_replicas": 3, "max_replicas": 2},
        {"max_replicas": 2, "target_queue_wait_s": 0.3},
        {"max_replicas": 2, "max_queue_wait_s": 0.1},
        {"max_replicas": 0},
    ],
)
def test_unknown_names_and_impossible_values_are_refused(args: dict[str, Any]):
    with pytest.raises(ValidationError):
        ServingSettings.model_validate(args)


def test_fewer_replicas_at_most_than_at_least_are_refused_with_both_numbers():
    with pytest.raises(ValidationError, match="min_replicas <= max_replicas, found 3 and 2"):
        ScalingSettings(min_replicas=3, max_replicas=2)
    assert ScalingSettings(min_replicas=2, max_replicas=2).max_replicas == 2


def test_replicas_at_least_are_replicas_at_most_where_nothing_else_is_said():
    assert ScalingSettings(min_replicas="2").most_replicas == 2
    assert ServingSettings(model="x", min_replicas=2).scaling.most_replicas == 2
    assert ScalingSettings().most_replicas == 1
    # What a Serve config leaves out, a variable may say.
    unset = ScalingSettings(min_replicas=2).model_dump(exclude_unset=True)
    assert unset == {"min_replicas": 2}


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        ServingSettings().corpus = "elsewhere"  # type: ignore[misc]


def test_served_names_are_one_or_more():
    assert ServingSettings(model="x", served_model_name="a").model_names == ("a",)
    assert ServingSettings(model="x", served_model_name=["a", "b"]).model_names == ("a", "b")
    assert ServingSettings(model="x").model_names == ("x",)


def test_keys_are_not_shown():
    settings = ServingSettings(api_keys=("hunter2",))

    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert [key.get_secret_value() for key in settings.api_keys] == ["hunter2"]


@pytest.mark.parametrize("given", ["a,b", ["a,b"], ("a", "b"), ("a, b",)])
def test_keys_between_commas_are_keys_however_they_are_given(given: object):
    keys = ServingSettings(model="x", api_keys=given).api_keys
    assert [key.get_secret_value() for key in keys] == ["a", "b"]


def test_a_key_in_the_environment_needs_no_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOFOLD_API_KEYS", "hunter2")

    assert [key.get_secret_value() for key in parsed().api_keys] == ["hunter2"]


def test_a_wrong_key_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOFOLD_API_KEYS", "[4711]")

    with pytest.raises(
        InvalidInputError, match=r"--api-keys \(TWOFOLD_API_KEYS\): expected"
    ) as refused:
        parsed()
    assert "4711" not in str(refused.value)


def test_a_wrong_setting_beside_keys_does_not_show_them():
    """Serve logs why an application cannot be built, and shows it in its status."""
    for given in ({"api_keys": "hunter2,"}, {"api_keys": ["hunter2"], "max_replicas": 0}):
        with pytest.raises(ValidationError) as refused:
            ServingSettings(model="x", **given)
        assert "hunter2" not in f"{refused.value!r} {refused.value}"


@pytest.mark.parametrize("given", ["hunter2\n", " hunter2", ["hunter2\t"], "hunter2, swordfish"])
def test_white_space_around_a_key_is_not_of_it(given: str | list[str]):
    keys = [key.get_secret_value() for key in ServingSettings(model="x", api_keys=given).api_keys]

    assert keys == ["hunter2", "swordfish"][: len(keys)]
    with pytest.raises(ValidationError, match="found an empty one"):
        ServingSettings(model="x", api_keys=" \n")


def test_several_keys_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOFOLD_API_KEYS", '["hunter2", "swordfish"]')

    keys = [key.get_secret_value() for key in parsed().api_keys]
    assert keys == ["hunter2", "swordfish"]


def test_flags_fill_every_group():
    settings = parsed(
        *("--model", "org/name", "--query-pooling", "mean", "--max-inputs", "9"),
        *("--min-replicas", "2", "--max-replicas", "4", "--corpus", "s3://bucket/out"),
        *("--served-model-name", "a", "b", "--default-role", "document"),
        *("--accept-token-arrays", "--no-access-log"),
    )

    assert settings.encoder.model == "org/name"
    assert settings.encoder.query_pooling is Pooling.MEAN
    assert settings.limits.max_inputs == 9
    assert (settings.scaling.min_replicas, settings.scaling.max_replicas) == (2, 4)
    assert settings.corpus == "s3://bucket/out"
    assert settings.model_names == ("a", "b")
    assert settings.default_role is Role.DOCUMENT
    assert settings.accept_token_arrays
    assert not settings.access_log


def test_flags_win_over_variables_and_those_over_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = tmp_path / "serve.yaml"
    config.write_text("model: yaml\nlimits:\n  max-inputs: 1\nmax_body_bytes: 1\ncorpus: out\n")
    monkeypatch.setenv("TWOFOLD_MAX_INPUTS", "2")
    monkeypatch.setenv("TWOFOLD_MAX_BODY_BYTES", "2")

    settings = parsed("--config", str(config), "--max-body-bytes", "3")

    assert settings.encoder.model == "yaml"
    assert settings.limits.max_inputs == 2
    assert settings.limits.max_body_bytes == 3
    assert settings.corpus == "out"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max-inputs", "0"], "--max-inputs: expected a value greater than or equal to 1"),
        (["--default-role", "passage"], "--default-role: expected .*'query' or 'document'"),
        (
            ["--min-replicas", "3", "--max-replicas", "2"],
            "^expected min_replicas <= max_replicas, found 3 and 2$",
        ),
        (
            ["--max-replicas", "2", "--target-queue-wait-s", "0.5"],
            r"target_queue_wait_s below max_queue_wait_s \(0.15\), found 0.5: .*; lower it, or",
        ),
        (["--modle", "x"], "--modle"),
        (["--port", "8000"], "--port"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(argv: list[str], message: str):
    with pytest.raises(InvalidInputError, match=message) as refused:
        parsed(*argv)
    assert "\n" not in str(refused.value)


def test_the_command_takes_the_endpoints_settings_and_its_own():
    settings = parse_settings(
        ServeCommandSettings,
        [
            *("--model", "org/name", "--max-replicas", "2", "--api-keys", "k"),
            *("--host", "0.0.0.0", "--port", "9000", "--ingress", "python"),
            *("--ray-address", "auto"),
        ],
        prog="twofold serve",
        description="",
    )

    assert (settings.host, settings.port, settings.ingress) == ("0.0.0.0", 9000, "python")
    assert settings.ray_address == "auto"
    assert type(settings.serving) is ServingSettings
    assert settings.serving == ServingSettings(model="org/name", max_replicas=2, api_keys=("k",))


@pytest.mark.parametrize("argv", [["--port", "0"], ["--port", "65536"], ["--ingress", "nginx"]])
def test_what_the_command_cannot_listen_on_is_refused(argv: list[str]):
    with pytest.raises(InvalidInputError, match=argv[0]):
        parse_settings(ServeCommandSettings, argv, prog="twofold serve", description="")


def test_importing_the_command_does_not_import_ray():
    """Ray reads the switches of its ingress when it is imported; the command sets them first."""
    code = (
        "import sys, serving.serve; print(sorted({'ray', 'torch', 'fastapi'} & set(sys.modules)))"
    )

    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )

    assert found.stdout.strip() == "[]", found.stderr


def test_serve_finds_the_settings_model_in_the_builders_annotation():
    from serving.app import build_app

    tree = ast.parse((REPOSITORY / "serving" / "app.py").read_text())
    assert not [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    (parameter,) = inspect.signature(build_app).parameters.values()
    assert parameter.annotation is ServingSettings
