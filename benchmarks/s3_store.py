"""A real S3 store on 127.0.0.1: SeaweedFS as one process, which can be paused, killed, restarted.

For `benchmarks.job --place s3` and for the tests, which take it from here (`support.s3_store`).

Known quirks: an emptied prefix stays in listings; an exclusive create that loses raises
OSError(EINVAL) through s3fs where AWS raises FileExistsError.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # no type information is published for it
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.ports import free_ports_with_grpc

__all__ = ["S3Address", "S3Store", "find_server"]

ACCESS_KEY = "twofold-test-key"
SECRET_KEY = "twofold-test-secret"
BUCKET = "twofold"
_START_TIMEOUT_S = 60


def find_server() -> str | None:
    """Return the path of SeaweedFS's binary, from this environment first, or None."""
    beside_python = Path(sys.executable).parent / "weed"
    return str(beside_python) if beside_python.exists() else shutil.which("weed")


@dataclass(frozen=True)
class S3Address:
    """Where a store listens: chosen before it starts, so that Ray workers can be told first.

    Attributes:
        master_port: Of its gRPC twin too, as the next two.
        volume_port: Where data is kept.
        filer_port: Where names are kept.
        s3_port: What clients speak to.
    """

    master_port: int
    volume_port: int
    filer_port: int
    s3_port: int

    @classmethod
    def choose(cls) -> S3Address:
        """Return one whose ports are free now."""
        return cls(*free_ports_with_grpc(4))

    @property
    def endpoint(self) -> str:
        """The URL that clients take."""
        return f"http://127.0.0.1:{self.s3_port}"

    def environment(self) -> dict[str, str]:
        """Return what a client (s3fs, boto3, a Ray worker, a subprocess) needs to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost",
        }


class S3Store:
    """One SeaweedFS process over a folder.

    Args:
        binary: Of SeaweedFS; see `find_server`.
        folder: Keeps what is stored, and the log.
        address: Where it listens.
    """

    def __init__(self, binary: str, folder: Path, address: S3Address) -> None:
        self.address = address
        self.endpoint = address.endpoint
        self.bucket = BUCKET
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                env={**os.environ, **self.address.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C of the tests ends it by the fixture, not at once
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """End the server, also when it is paused."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def pause(self) -> None:
        """Stop the process in its tracks: clients connect and wait, as in an outage."""
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`; harmless without one."""
        self._running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed."""
        self._running.kill()
        self._running.wait()

    def restart(self) -> None:
        """Start again over the same folder and ports, after `kill` or `stop`."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        self.start()

    def make_bucket(self, name: str) -> str:
        """Create a bucket and return its URI."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def fresh_prefix(self) -> str:
        """Return a URI that nothing was written under."""
        return f"s3://{self.bucket}/{uuid.uuid4().hex[:12]}"

    def client(self, endpoint: str | None = None, **config: object) -> Any:  # noqa: ANN401 - no types
        """Return a boto3 client that fails soon; `endpoint` may be a proxy's."""
        settings: dict[str, Any] = {
            "connect_timeout": 5,
            "read_timeout": 20,
            "retries": {"total_max_attempts": 1},
        }
        return boto3.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(**{**settings, **config}),
        )

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the S3 store was not started")
        return self._process

    def _command(self) -> list[str]:
        address = self.address
        return [
            self._binary,
            "mini",
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-master.port={address.master_port}",
            f"-volume.port={address.volume_port}",
            f"-filer.port={address.filer_port}",
            f"-s3.port={address.s3_port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            f"-bucket={self.bucket}",
        ]

    def _wait_until_ready(self) -> None:
        client = self.client(connect_timeout=1, read_timeout=2)
        deadline = time.monotonic() + _START_TIMEOUT_S
        probe = f"ready-{uuid.uuid4().hex}"
        while time.monotonic() < deadline:
            if self._running.poll() is not None:
                break
            try:
                # A write: the S3 port answers before the volumes take data.
                client.put_object(Bucket=self.bucket, Key=probe, Body=b"x")
                client.delete_object(Bucket=self.bucket, Key=probe)
            except (BotoCoreError, ClientError):
                time.sleep(0.1)
            else:
                return
        log = (self._folder / "log.txt").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the S3 store did not come up in {_START_TIMEOUT_S} s:\n{log}")
