"""What happens under load: too much of it, a killed replica, a redeploy, more and fewer replicas.

No time is asserted; `benchmarks/serve.py` measures. Each test has an endpoint of its own.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from support import endpoints
from support.answers import assert_error, assert_ours_is_shaped
from support.endpoints import READY, Endpoint
from support.listeners import listeners
from support.load import Answer, Load, offer, work
from support.processes import running_module

pytestmark = [pytest.mark.integration, pytest.mark.slow]

POOLINGS = ("--query-pooling", "mean", "--document-pooling", "cls")
PATIENT = ("--max-queue-wait-s", "600")
"""Nothing is refused for the load that these tests make, however slow the machine."""
SENTENCE = "What a query of about thirty tokens asks for is one of many things that someone wrote. "
START_TIMEOUT_S = 300
# Explicit, so that neither ~/.ray/auth_token nor its absence decides.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
serving = partial(endpoints.serving, environment=TOKEN, timeout_s=START_TIMEOUT_S)


def load_of(endpoint: Endpoint, inputs: int) -> Load:
    texts = [f"{number}: {SENTENCE}" for number in range(inputs)]
    return Load(f"{endpoint.url}/v1/embeddings", {"input": texts, "encoding_format": "base64"})


def replicas(endpoint: Endpoint) -> set[int]:
    """Return the processes that are replicas."""
    found = endpoint.running.descendants()
    return {pid for pid, command in found.items() if command.startswith("ray::ServeReplica:")}


def statuses(answers: list[Answer]) -> Counter[int | None]:
    return Counter(answer.status for answer in answers)


@contextmanager
def sampled(look: Callable[[], int], every_s: float = 0.5) -> Iterator[list[int]]:
    """Collect what `look` returns, from a thread, as long as the context is open."""
    found: list[int] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.is_set():
            found.append(look())
            stop.wait(every_s)

    with ThreadPoolExecutor(1) as thread:
        sampling = thread.submit(sample)
        try:
            yield found
        finally:
            stop.set()
            sampling.result()


def wait_until(condition: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.5)


# --- overload -------------------------------------------------------------------------------------

OVERLOAD_S = 60
TIMES = 10


def test_ten_times_the_load_is_refused_at_once_and_nothing_grows(noinstruct_model, tmp_path):
    limits = ("--max-queued-tokens", "8000", "--max-request-tokens", "4000")
    with serving(tmp_path, *POOLINGS, *limits, model=str(noinstruct_model)) as endpoint:
        load = load_of(endpoint, inputs=64)
        [replica] = replicas(endpoint)
        with sampled(lambda: ready(endpoint)) as readiness:
            carried = carried_per_s(load)
            with sampled(lambda: resident_bytes(replica)) as resident:
                answers = asyncio.run(offer(load, per_s=TIMES * carried, seconds=OVERLOAD_S))
        after = httpx.post(load.url, json={"input": "a"}, timeout=60)

    found = statuses(answers)
    assert set(found) == {200, 429}, told(answers)
    assert len(answers) > TIMES / 2 * found[200], "it was at least half of ten times too much"
    for answer in answers:
        assert_ours_is_shaped(answer.status, answer.headers, answer.body)
        if answer.status == 429:
            assert_error(answer.body, 429, "Retry-After")
            assert int(answer.headers["retry-after"]) >= 1
    assert set(readiness) == {200}
    assert len(readiness) > OVERLOAD_S / 2, "it was asked for all the time"
    third = len(resident) // 3
    middle, last = resident[third : 2 * third], resident[2 * third :]
    assert sum(last) / len(last) < 1.1 * sum(middle) / len(middle), resident
    assert after.status_code == 200, "when the load is gone, it is as before"


def carried_per_s(load: Load) -> float:
    """Return how many requests a second a few clients get through."""
    seconds = 8.0
    answers = asyncio.run(work(load, connections=3, until=lambda: time.sleep(seconds)))
    return statuses(answers)[200] / seconds


def ready(endpoint: Endpoint) -> int:
    return httpx.get(f"{endpoint.url}/health/ready", timeout=30).status_code


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


# --- a killed replica -----------------------------------------------------------------------------

TWO_REPLICAS = (
    *("--min-replicas", "2", "--max-replicas", "2"),
    *("--num-cpus", "6", "--num-cpus-per-replica", "1"),
)
DYING_S = 1.0
"""From SIGKILL to its closed sockets: the kernel takes a large process apart before those."""


def test_a_killed_replica_takes_only_the_requests_that_it_held(minilm, tmp_path):
    connections = 8
    killed_at = 0.0
    with serving(tmp_path, *POOLINGS, *PATIENT, *TWO_REPLICAS, model=minilm) as endpoint:
        before = replicas(endpoint)
        assert len(before) == 2

        def until() -> None:
            nonlocal killed_at
            time.sleep(3)
            killed_at = time.monotonic()
            os.kill(min(before), signal.SIGKILL)
            wait_until(lambda: running_replicas(endpoint) == 1)
            wait_until(lambda: running_replicas(endpoint) == 2)
            time.sleep(5)

        load = load_of(endpoint, inputs=16)
        answers = asyncio.run(work(load, connections=connections, until=until))
        after = replicas(endpoint)

    failed = [answer for answer in answers if answer.status != 200]
    assert 1 <= len(failed) <= connections, statuses(answers)
    for answer in failed:
        assert answer.started <= killed_at + DYING_S, "it was sent when the replica was gone"
        assert answer.ended >= killed_at, "it failed before anything was killed"
        assert answer.status in (None, 500)
        assert_ours_is_shaped(answer.status, answer.headers, answer.body)
    assert len(after) == 2
    assert min(before) not in after
    assert statuses([a for a in answers if a.started > killed_at + DYING_S]).keys() == {200}


# --- a redeploy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_a_redeploy_with_a_new_setting_costs_no_request(minilm, tmp_path, count):
    scaling = ("--min-replicas", str(count), "--max-replicas", str(count))
    unchanged = [*POOLINGS, *PATIENT, *scaling, "--num-cpus-per-replica", "1"]
    with serving(tmp_path, *unchanged, "--num-cpus", "6", model=minilm) as endpoint:
        before = replicas(endpoint)

        def until() -> None:
            time.sleep(2)
            redeploy(endpoint, tmp_path, [*unchanged, "--max-inputs", "17"])
            # Replicas that were replaced finish what they hold.
            wait_until(lambda: not replicas(endpoint) & before)
            time.sleep(5)

        answers = asyncio.run(work(load_of(endpoint, inputs=16), connections=8, until=until))
        beyond = httpx.post(f"{endpoint.url}/v1/embeddings", json={"input": ["a"] * 18})

    assert beyond.status_code == 413
    assert_error(beyond.content, 413, "at most 17 inputs, found 18")
    assert set(statuses(answers)) == {200}, told(answers)


def redeploy(endpoint: Endpoint, folder: Path, settings: list[str]) -> None:
    """Deploy on the endpoint's Ray with other settings, and return when they are served."""
    commands = " ".join(endpoint.running.descendants().values())
    [address] = set(re.findall(r"--gcs-address=(\S+:\d+)", commands))
    given = ["--model", endpoint.model, "--port", endpoint.url.rpartition(":")[2], *settings]
    with running_module(
        folder, "twofold", "serve", "--ray-address", address, *given, environment=TOKEN
    ) as second:
        second.wait_for_output(READY, START_TIMEOUT_S)


def told(answers: list[Answer]) -> str:
    """Say which requests failed, when, and how."""
    begin = min(answer.started for answer in answers)
    lines = [str(statuses(answers))]
    lines += [
        f"{answer.started - begin:.2f} to {answer.ended - begin:.2f} s: {answer.status} "
        f"{answer.failure} {dict(answer.headers)} {answer.body[:200]!r}"
        for answer in answers
        if answer.status != 200
    ]
    return "\n".join(lines[:20])


# --- more and fewer replicas ----------------------------------------------------------------------


def test_replicas_follow_the_offered_tokens_up_and_down(minilm, tmp_path):
    with serving(
        tmp_path,
        *POOLINGS,
        *("--min-replicas", "1", "--max-replicas", "3"),
        *("--num-cpus", "8", "--num-cpus-per-replica", "1"),
        *("--upscale-delay-s", "1", "--downscale-delay-s", "5", "--drain-timeout-s", "10"),
        model=minilm,
    ) as endpoint:
        with sampled(lambda: running_replicas(endpoint), every_s=1) as running:
            wait_until(lambda: len(running) > 0)

            def until() -> None:
                wait_until(lambda: running[-1] == 3)

            answers = asyncio.run(work(load_of(endpoint, inputs=64), connections=32, until=until))
            wait_until(lambda: running[-1] == 1)
        after = httpx.post(f"{endpoint.url}/v1/embeddings", json={"input": "a"}, timeout=60)

    assert running[0] == 1
    assert max(running) == 3, running
    assert running[-1] == 1, running
    assert set(statuses(answers)) <= {200, 429}, told(answers)
    assert after.status_code == 200


def running_replicas(endpoint: Endpoint) -> int:
    """Return how many replicas are RUNNING, as the cluster's dashboard tells."""
    commands = endpoint.running.descendants()
    dashboard = {pid for pid, command in commands.items() if "dashboard/dashboard.py" in command}
    for address, port in listeners(dashboard):
        with suppress(httpx.TransportError):
            url = f"http://{address}:{port}/api/serve/applications/"
            key = {"authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"}
            answer = httpx.get(url, headers=key, timeout=30)
            if not answer.headers["content-type"].startswith("application/json"):
                continue  # its own metrics, on a port of their own
            assert answer.status_code == 200, answer.text
            [deployment] = answer.json()["applications"]["twofold"]["deployments"].values()
            return [each["state"] for each in deployment["replicas"]].count("RUNNING")
    raise AssertionError("the cluster's dashboard does not answer")
