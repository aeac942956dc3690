"""Whether a cluster was there is found out from Ray; what does not fit is said accordingly."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import AuthenticationError

from encoder.errors import InvalidInputError
from pipelines.driver import cluster
from pipelines.driver.cluster import start_ray
from pipelines.driver.pool import Pool
from pipelines.errors import ClusterError
from pipelines.settings import EmbedCorpusSettings
from pipelines.storage import Storage

ELASTIC = "an elastic cluster needs --actors MIN:MAX"


class FakeRay:
    """A Ray of 4 CPUs that is connected, that waits to be joined, or that is not there."""

    def __init__(
        self,
        *,
        connected: bool = False,
        refusal: Exception | None = None,
        breakage: Exception | None = None,
        alive: int = 1,
    ) -> None:
        self.connected = connected
        self._breakage = breakage
        self._alive = alive
        self.started = False
        self._refusal = refusal

    def is_initialized(self) -> bool:
        return self.connected

    def init(self, **options: Any) -> None:
        assert not self.connected
        # As Ray does, above its own handler of C++, which aborts.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        if self._breakage:
            raise self._breakage
        if self._refusal and "resources" in options:
            raise self._refusal
        self.connected = True
        self.started = self._refusal is None

    def nodes(self) -> list[dict[str, Any]]:
        alive = {"Alive": True, "Resources": {"CPU": 4.0}}
        dead = {"Alive": False, "Resources": {"CPU": 64.0}}
        return [*([alive] * self._alive), dead] if self.connected else []


THERE = [
    FakeRay(connected=True),
    FakeRay(refusal=ValueError("resources must not be provided")),
    FakeRay(refusal=ConnectionAbortedError("Initialization failure from server")),
]


@pytest.fixture(autouse=True)
def messages_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def start(fake: FakeRay, monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: object) -> Pool:
    monkeypatch.setattr(cluster, "ray", fake)
    given = {"input": ("x",), "output": str(folder), **settings}
    chosen = EmbedCorpusSettings(**given)
    return start_ray(chosen, Storage(chosen.output), units=9)


@pytest.mark.parametrize("fake", THERE, ids=["connected", "found", "client"])
def test_a_cluster_that_is_there_is_joined_and_may_yet_grow(fake, monkeypatch, caplog, tmp_path):
    pool = start(fake, monkeypatch, tmp_path, num_cpus_per_actor=8)
    assert fake.connected
    assert not fake.started
    assert not pool.fits_now
    assert "waiting for one to join" in caplog.text
    assert f"sized by the 1 nodes alive now; {ELASTIC}" in caplog.text


def test_what_sigterm_does_is_as_it_was_before_ray(monkeypatch, tmp_path):
    def stop(*_: object) -> None:
        """The command's."""

    before = signal.signal(signal.SIGTERM, stop)
    try:
        start(FakeRay(), monkeypatch, tmp_path, num_cpus_per_actor=1)
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


def test_where_no_node_tells_how_many_cpus_an_actor_has_they_must_be_given(monkeypatch, tmp_path):
    elastic = {"num_gpus_per_actor": 1, "actors": "1:4"}
    with pytest.raises(InvalidInputError, match=r"an actor with 1 GPUs.*give --num-cpus-per-actor"):
        start(FakeRay(connected=True), monkeypatch, tmp_path, **elastic)
    pool = start(FakeRay(connected=True), monkeypatch, tmp_path, **elastic, num_cpus_per_actor=12)
    assert pool.threads == 12


def test_where_no_cluster_is_one_is_started_and_what_does_not_fit_is_refused(
    monkeypatch, caplog, tmp_path
):
    fake = FakeRay()
    assert start(fake, monkeypatch, tmp_path).num_cpus == 4
    assert fake.started
    assert ELASTIC not in caplog.text
    with pytest.raises(InvalidInputError, match="this machine has not as much"):
        start(FakeRay(), monkeypatch, tmp_path, num_cpus_per_actor=8)


@pytest.mark.parametrize(
    ("places", "named"),
    [
        (
            {"input": ("s3://b/in", "/in"), "output": "s3://b/out"},
            "found a local folder: --input /in;",
        ),
        ({"input": ("file:///in",), "output": "s3://b/out"}, "--input file:///in"),
        ({"input": ("s3://b/in",), "output": "/out"}, "found a local folder: --output /out;"),
        ({"input": ("/in/*.csv",), "output": "/out"}, "--input /in/*.csv, --output /out"),
    ],
    ids=["one-input", "a-file-uri", "output", "both"],
)
def test_a_folder_of_this_machine_is_refused_on_several_nodes_unless_all_mount_it(
    monkeypatch, tmp_path, places, named
):
    with pytest.raises(InvalidInputError, match="a cluster of 3 nodes") as refused:
        start(FakeRay(connected=True, alive=3), monkeypatch, tmp_path, **places)
    assert named in str(refused.value)
    start(FakeRay(connected=True, alive=1), monkeypatch, tmp_path, **places)
    fake = FakeRay(connected=True, alive=3)
    start(fake, monkeypatch, tmp_path, **places, shared_filesystem=True)


def test_object_stores_are_reached_from_every_node(monkeypatch, tmp_path):
    places = {"input": ("s3://b/in",), "output": "s3://b/out"}
    start(FakeRay(connected=True, alive=3), monkeypatch, tmp_path, **places)


def test_who_fixed_the_actors_is_not_told_to(monkeypatch, caplog, tmp_path):
    start(FakeRay(connected=True), monkeypatch, tmp_path, actors="1:4")
    assert ELASTIC not in caplog.text
    assert "1 to 4 actors" in caplog.text


@pytest.mark.parametrize(
    "breakage",
    [
        RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.59.0"),
        AuthenticationError("InvalidAuthToken: no token"),
        ConnectionError("Failed to connect to GCS at 10.0.0.1:6379"),
        ValueError("Can't find a `node_ip_address.json` file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_cluster_that_cannot_be_joined_is_one_line_that_says_what_to_check(
    monkeypatch, tmp_path, breakage
):
    with pytest.raises(ClusterError, match=r"check RAY_ADDRESS.*token") as refused:
        start(FakeRay(breakage=breakage), monkeypatch, tmp_path)
    assert " ".join(str(breakage).split("\n")[0].split()) in str(refused.value)
    assert "\n" not in str(refused.value)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_an_address_where_nobody_listens_is_refused_before_ray_ends_the_process(
    monkeypatch, tmp_path
):
    for address in (f"127.0.0.1:{free_port()}", "127.0.0.1:70000", "no..name:6379"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        fake = FakeRay()
        with pytest.raises(ClusterError, match=f"at RAY_ADDRESS {address}, found none"):
            start(fake, monkeypatch, tmp_path)
        assert not fake.connected


@pytest.mark.parametrize("address", ["auto", "local", "ray://127.0.0.1:1", ""])
def test_an_address_that_is_no_host_and_port_is_rays_to_judge(monkeypatch, tmp_path, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    fake = FakeRay()
    start(fake, monkeypatch, tmp_path)
    assert fake.connected


def test_ray_refuses_resources_for_a_cluster_that_is_there():
    # What `start_ray` rests on. Ray judges this before it connects: nobody listens there. In a
    # process of its own, because Ray may be connected in this one.
    code = "import ray; ray.init(resources={'twofold': 1.0}, configure_logging=False)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert "must not be provided" in done.stderr
