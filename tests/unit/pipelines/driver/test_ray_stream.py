"""What is kept of Ray's words; what runs units is tested with Ray, in tests/integration."""

from __future__ import annotations

import logging

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, RayTaskError

from pipelines.driver.ray_stream import _OneLine


def death(why: str) -> ActorDiedError:
    return ActorDiedError(
        ActorDiedErrorContext(
            class_name="MapWorker(MapBatches(UnitEmbedder))",
            actor_id=bytes(16),
            pid=4711,
            node_ip_address="10.0.0.7",
            error_message=why,
        )
    )


def shortened(error: Exception) -> tuple[str, list[str]]:
    """Return what is logged of an error, and what is kept."""
    record = logging.makeLogRecord({"msg": "raised", "exc_info": (type(error), error, None)})
    shorten = _OneLine()
    # Of two handlers each has the filter.
    assert shorten.filter(record)
    assert shorten.filter(record)
    return record.getMessage(), list(shorten.deaths)


@pytest.mark.parametrize("why", ["killed by the OOM killer", "its node has died.\nNo heartbeats"])
def test_where_and_why_a_worker_died_is_one_line_and_kept(why):
    told = f"pid: 4711 ip: 10.0.0.7 {' '.join(why.split())}"
    assert shortened(death(why)) == (f"a worker died: {told}", [told])


def test_a_long_reason_is_cut():
    _, (told,) = shortened(death("because " * 100))
    assert len(told) == 400


def test_of_what_a_worker_raises_the_cause_is_told_without_its_traceback():
    cause = KeyError("a")
    raised = RayTaskError("map", "Traceback:\n  File x\nKeyError: 'a'\nConfigure retries", cause)
    assert shortened(raised)[1] == ["KeyError: 'a'"]
    assert shortened(RuntimeError())[1] == ["RuntimeError"]
