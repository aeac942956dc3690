from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.encoder_thread import encoder_thread

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has a priority for each thread"
)


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_the_encoders_threads_yield_to_the_event_loop():
    def of_a_thread_started_here() -> int:
        with ThreadPoolExecutor(1) as inner:
            return inner.submit(priority).result()

    before = priority()
    with encoder_thread() as thread:
        assert thread.submit(priority).result() > before
        assert thread.submit(of_a_thread_started_here).result() > before
    assert priority() == before
