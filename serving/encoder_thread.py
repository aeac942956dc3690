"""The thread that encodes: where both want a core, the event loop gets most of it.

Under overload the event loop refuses hundreds of requests a second. Beside encoder threads of equal
priority it got half a core, and requests waited for seconds before anybody refused them.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

__all__ = ["encoder_thread"]

_NICER = 5


def encoder_thread() -> ThreadPoolExecutor:
    """Return one thread of lower priority; threads that are started in it inherit that (Linux)."""
    return ThreadPoolExecutor(1, thread_name_prefix="encoder", initializer=_lower_priority)


def _lower_priority() -> None:
    if sys.platform == "linux":
        # Linux takes the id of a thread here; elsewhere it would be the whole process.
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICER)
