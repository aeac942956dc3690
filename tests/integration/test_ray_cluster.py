"""The session's Ray and the helpers for subprocesses do what other tests assume."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.processes import run_module, running_module
from support.s3_store import S3Address

pytestmark = pytest.mark.integration


@pytest.mark.usefixtures("ray_cluster")
def test_workers_inherit_the_stores_address_and_import_the_repository(s3_environment: S3Address):
    import ray

    @ray.remote
    def look() -> tuple[str, str]:
        import encoder.errors

        return os.environ["AWS_ENDPOINT_URL"], encoder.errors.__name__

    assert ray.get(look.remote()) == (s3_environment.endpoint, "encoder.errors")


@pytest.mark.usefixtures("ray_cluster")
def test_ray_data_maps_a_batch_in_an_actor():
    import ray

    class Doubler:
        def __call__(self, batch):
            return {"value": batch["item"] * 2}

    rows = ray.data.from_items([1, 2, 3]).map_batches(
        Doubler, compute=ray.data.ActorPoolStrategy(size=1)
    )
    assert sorted(row["value"] for row in rows.take_all()) == [2, 4, 6]


def test_a_module_runs_to_its_end_with_its_output(tmp_path: Path):
    finished = run_module(tmp_path, "platform", timeout_s=30)
    assert finished.returncode == 0
    assert "Linux" in finished.stdout


def test_leaving_a_running_module_ends_what_it_left_behind(tmp_path: Path):
    # A grandchild in a session of its own whose parent is gone: found by the token alone.
    (tmp_path / "leaves_a_daemon.py").write_text(
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True)\n"
        "print('left', flush=True)\n"
    )
    with running_module(tmp_path, "leaves_a_daemon") as running:
        running.wait(30)
        left = running.descendants()
        assert len(left) == 1
    assert not any(is_alive(pid) for pid in left)


@pytest.mark.slow
def test_a_ray_whose_driver_was_killed_is_ended_to_its_last_process(tmp_path: Path):
    (tmp_path / "driver.py").write_text(
        "import ray, time\n"
        "ray.init(address='local', num_cpus=1, include_dashboard=False,"
        " object_store_memory=100 * 2**20)\n"
        "actor = ray.remote(type('A', (), {'f': lambda self: 'ready'})).remote()\n"
        "print(ray.get(actor.f.remote()), flush=True)\n"
        "time.sleep(100)\n"
    )
    with running_module(tmp_path, "driver") as running:
        running.wait_for_output("ready", timeout_s=60)
        started = running.descendants()
        assert any("raylet" in command for command in started.values())
        running.kill_driver()
    assert not any(is_alive(pid) for pid in started)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"
