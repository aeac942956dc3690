"""A port that is taken is named before Ray starts, with the setting that moves it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from serving.errors import ServeError
from serving.ports import check_ports_free
from serving.serve import main

LOOPBACK = "127.0.0.1"
MOVABLE = (
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another process listens; as HAProxy's, it may be shared by who asks so."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((LOOPBACK, 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def free() -> list[int]:
    """Ports at which nobody listens."""
    sockets = [socket.socket() for _ in range(4)]
    for each in sockets:
        each.bind((LOOPBACK, 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def moved(free: list[int]) -> dict[str, str]:
    """Variables that move HAProxy's ports to free ones."""
    return {name: str(port) for name, port in zip(MOVABLE, free[1:], strict=True)}


def test_free_ports_are_no_reason_not_to_start(free: list[int], moved: dict[str, str]):
    check_ports_free(LOOPBACK, free[0], moved, through_haproxy=True)


def test_a_port_at_which_somebody_listens_is_named_with_its_setting(taken: int):
    with pytest.raises(ServeError, match=rf"{LOOPBACK}:{taken} \(--host and --port\), found an"):
        check_ports_free(LOOPBACK, taken, {}, through_haproxy=False)


@pytest.mark.parametrize("variable", MOVABLE)
def test_so_are_haproxys_own(variable: str, taken: int, free: list[int], moved: dict[str, str]):
    environment = {**moved, variable: str(taken)}
    with pytest.raises(ServeError, match=rf":{taken} \({variable}\), found another process"):
        check_ports_free(LOOPBACK, free[0], environment, through_haproxy=True)
    check_ports_free(LOOPBACK, free[0], environment, through_haproxy=False)


def test_every_port_that_is_taken_has_a_line(taken: int, moved: dict[str, str]):
    environment = {**moved, MOVABLE[0]: str(taken)}
    with pytest.raises(ServeError) as refusal:
        check_ports_free(LOOPBACK, taken, environment, through_haproxy=True)
    assert len(str(refusal.value).splitlines()) == 2


def test_ports_that_are_the_same_are_refused(free: list[int], moved: dict[str, str]):
    environment = {**moved, MOVABLE[2]: str(free[0])}
    with pytest.raises(
        ServeError, match=rf"differ, found {free[0]} for --host and --port\n.*FALLB"
    ):
        check_ports_free(LOOPBACK, free[0], environment, through_haproxy=True)


def test_a_server_that_has_just_ended_is_not_in_the_way(free: list[int]):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOOPBACK, free[0]))
        server.listen()
        with socket.create_connection((LOOPBACK, free[0])) as client:
            accepted, _ = server.accept()
            accepted.close()  # first: so this side is the one whose connection lingers
            assert client.recv(1) == b""
    check_ports_free(LOOPBACK, free[0], {}, through_haproxy=False)


@pytest.mark.parametrize("host", ["192.0.2.123", "no.such.host.invalid", "no..name"])
def test_an_address_that_is_not_this_machines_is_refused(host: str, free: list[int]):
    with pytest.raises(ServeError, match=rf"{host}:.*; choose another"):
        check_ports_free(host, free[0], {}, through_haproxy=False)


def test_the_command_ends_before_it_starts_ray(
    taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("ray.init", None)
    assert main(["--port", str(taken), "--ingress", "python"]) == 5
    assert capsys.readouterr().err.startswith(f"twofold: error: expected to listen on {LOOPBACK}:")
