"""What `twofold serve` says where there is no ingress or no cluster."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import ray

from serving.serve import ServeCommandSettings, _ready_line, _run, _wants_haproxy, main


@pytest.mark.parametrize(
    ("ingress", "is_there", "through_haproxy"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("haproxy", True, True),
        ("python", True, False),
        ("python", False, False),
    ],
)
def test_without_an_haproxy_the_ingress_is_the_plain_one_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, ingress: str, is_there: bool, through_haproxy: bool
):
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH", raising=False)
    monkeypatch.setattr("serving.serve.has_haproxy", lambda environment: is_there)
    settings = ServeCommandSettings(ingress=ingress)  # type: ignore[arg-type]
    assert _wants_haproxy(settings) is through_haproxy


@pytest.mark.parametrize("ingress", ["auto", "haproxy"])
def test_an_haproxy_that_was_asked_for_and_is_not_there_is_one_line_before_ray_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ingress: str
):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/nowhere/haproxy")
    monkeypatch.setattr("ray.init", None)
    assert main(["--ingress", ingress]) == 5
    assert capsys.readouterr().err.startswith(
        "twofold: error: expected an HAProxy for --ingress haproxy or RAY_SERVE_HAPROXY_BINARY_PATH"
    )


def test_an_address_at_which_nobody_listens_is_one_line_and_not_rays_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("ray.init", None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert main(["--ray-address", address]) == 5
    said = capsys.readouterr().err
    assert said.startswith(f"twofold: error: expected a Ray cluster at {address}, found Connection")
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert main(["--ray-address", "auto"]) == 5
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("address", ["127.0.0.1:70000", "no..name:6379"])
def test_an_address_that_is_none_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
):
    monkeypatch.setattr("ray.init", None)
    assert main(["--ray-address", address]) == 5
    said = capsys.readouterr().err
    assert said.startswith(f"twofold: error: expected a Ray cluster at {address}, found ")


@pytest.mark.parametrize(
    "error", [ray.exceptions.AuthenticationError("no token"), RuntimeError("Version mismatch")]
)
def test_a_cluster_that_takes_nobody_in_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
):
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", refuse)
    assert main(["--ray-address", "ray://head:10001"]) == 5
    said = capsys.readouterr().err
    assert said.startswith(
        f"twofold: error: expected a Ray cluster at ray://head:10001, found {type(error).__name__}:"
    )
    assert str(error).splitlines()[0] in said


def test_haproxys_files_are_the_operators_where_he_says_so_and_else_in_a_folder_of_our_own(
    monkeypatch: pytest.MonkeyPatch,
):
    class ReachedError(Exception):
        pass

    def reached(settings: object) -> None:
        raise ReachedError

    socket, config = "RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"
    environment = {socket: "/run/mine/admin.sock"}
    monkeypatch.setattr("serving.serve.os.environ", environment)
    monkeypatch.setattr("serving.serve.check_ports_free", lambda *_, **__: None)
    monkeypatch.setattr("serving.serve._check_here", reached)
    monkeypatch.setattr("serving.serve.parse_settings", lambda kind, *_, **__: kind(model="any"))
    with pytest.raises(ReachedError):
        _run([])

    assert environment[socket] == "/run/mine/admin.sock"
    assert not environment[config].startswith("/tmp/haproxy-serve")
    assert not Path(environment[config]).parent.exists(), "left behind"


@pytest.mark.parametrize(
    ("given", "is_told"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "10.0.0.7"}, True),
        ({"host": "some.name"}, True),
        ({"ray_address": "auto"}, True),
        ({"host": "0.0.0.0", "api_keys": ("key",)}, False),
    ],
)
def test_the_ready_line_says_where_other_machines_need_no_key(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], is_told: bool
):
    monkeypatch.setattr("serving.serve._ingress_found", lambda settings: "through HAProxy")
    line = _ready_line(ServeCommandSettings(**given))
    assert ("whoever reaches this address is answered" in line) is is_told
    assert line.endswith("\n")
    assert line.count("\n") == 1
