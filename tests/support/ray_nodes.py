"""A Ray cluster as an operator starts it: `ray start`, with a token, a job API on 127.0.0.1 and as
many nodes as a test wants. All of it ends with the context.

Ray itself listens on this machine's own address (it takes 127.0.0.1 for that), behind the token.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from support.ports import free_port
from support.processes import Finished, Running, run_module, running_module

__all__ = ["RayNodes"]

REPOSITORY = Path(__file__).resolve().parents[2]
_RAY = "ray.scripts.scripts"
_START_TIMEOUT_S = 60


class RayNodes:
    """A head node and those that join it, used as a context manager."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """Choose the ports; nothing is started before the context is entered.

        Args:
            folder: Where the commands' output goes.
            environment: What every node and the jobs on them see.
        """
        self._folder = folder
        self._stack = ExitStack()
        self._port = free_port()
        self._dashboard_port = free_port()
        # Explicit, so that neither ~/.ray/auth_token nor its absence decides.
        self.client_environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
        self._environment = {**(environment or {}), **self.client_environment}
        self.address = f"127.0.0.1:{self._port}"
        self.job_address = f"http://127.0.0.1:{self._dashboard_port}"

    def __enter__(self) -> RayNodes:
        # Unix sockets allow 107 bytes of path: pytest's own folders are too deep.
        self._temporary = tempfile.mkdtemp(prefix="twofold-nodes-", dir="/tmp")
        self._stack.callback(shutil.rmtree, self._temporary, ignore_errors=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start_head(self, num_cpus: int) -> Running:
        """Start the head node, with the dashboard that takes jobs."""
        return self._start(
            num_cpus,
            "--head",
            f"--port={self._port}",
            f"--ray-client-server-port={free_port()}",
            "--include-dashboard=true",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self._dashboard_port}",
            f"--temp-dir={self._temporary}",
        )

    def add_node(self, num_cpus: int) -> Running:
        """Start a node that joins; `kill_tree` on what is returned is the loss of that node."""
        return self._start(num_cpus, f"--address={self.address}")

    def _start(self, num_cpus: int, *more: str) -> Running:
        arguments = [
            "start",
            "--block",
            "--disable-usage-stats",
            f"--num-cpus={num_cpus}",
            # Its default port is the same for all of Ray on a machine; without it, no jobs.
            f"--dashboard-agent-listen-port={free_port()}",
            f"--object-store-memory={100 * 2**20}",
            *more,
        ]
        running = self._stack.enter_context(
            running_module(self._folder, _RAY, *arguments, environment=self._environment)
        )
        running.wait_for_output("--block", _START_TIMEOUT_S)
        return running

    def submit(self, *arguments: str, timeout_s: float = 240) -> Finished:
        """Run `ray job submit` from the repository, as the README says, and wait for the job."""
        given = ["job", "submit", "--address", self.job_address]
        given += ["--working-dir", str(REPOSITORY), "--", *arguments]
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            finished = run_module(
                self._folder,
                _RAY,
                *given,
                environment=self.client_environment,
                timeout_s=timeout_s,
            )
            # The head is up before its job agent is.
            is_early = "No available agent" in finished.stderr + finished.stdout
            if not is_early or time.monotonic() > deadline:
                return finished
            time.sleep(1)
