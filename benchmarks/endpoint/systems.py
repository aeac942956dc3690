"""How each system is started. All serve the same model on `POST /v1/embeddings` of 127.0.0.1.

Each runs as its own documentation starts it, with its own defaults for threads and batches. Those
that live in a virtual environment of their own (see `make bench-peers`) may be absent.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.model_forms import ModelFolders
from benchmarks.ports import free_port, free_ports

__all__ = ["MODEL_NAME", "ROUTE", "System", "echo", "peers", "twofold"]

MODEL_NAME = "bench"
"""What requests give as `model`."""
ROUTE = "/v1/embeddings"
_HOST = "127.0.0.1"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
_RAY_PORTS = 64
"""For the replicas of one Ray."""
_PEER_SERVER = Path(__file__).resolve().parent.parent / "peers"


@dataclass(frozen=True)
class System:
    """A server to measure.

    Attributes:
        name: Who.
        engine: What does the forward; empty where the system has one alone, or none.
        port: On 127.0.0.1.
        command: Starts it.
        environment: Variables beside those of this process.
        python: Of its environment.
        embeds: Whether it answers with vectors.
    """

    name: str
    engine: str
    port: int
    command: Sequence[str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    python: str = sys.executable
    embeds: bool = True

    @property
    def label(self) -> str:
        """Name and engine, as summaries have them."""
        return f"{self.name} {self.engine}".strip()


def twofold(models: ModelFolders, flags: Sequence[str], ray_folder: Path) -> System:
    """Return this project's endpoint, as `twofold serve` starts it.

    Args:
        models: The model.
        flags: More of its flags.
        ray_folder: For Ray's sockets and logs; its path must be short.
    """
    port = free_port()
    return System(
        "twofold",
        "",
        port,
        (
            *(sys.executable, "-m", "twofold", "serve", "--model", str(models.ours)),
            *("--served-model-name", MODEL_NAME, "--host", _HOST, "--port", str(port)),
            *("--metrics-port", str(free_port()), *flags),
        ),
        _ray_environment(ray_folder),
    )


def echo(ray_folder: Path) -> System:
    """Return an empty Serve application behind the same ingress: the price of HTTP and Serve."""
    port = free_port()
    return System(
        "echo",
        "",
        port,
        (sys.executable, "-m", "benchmarks.endpoint.echo_app", str(port)),
        _ray_environment(ray_folder),
        embeds=False,
    )


def peers(models: ModelFolders, environments: Path) -> tuple[list[System], dict[str, str]]:
    """Return the peers, and why others are left out, by label.

    Args:
        models: The model, in the forms that they read.
        environments: Folder of their virtual environments.
    """
    found = [
        _infinity(models, environments / "infinity", "torch"),
        _infinity(models, environments / "infinity-onnx", "onnx"),
        _sentence_transformers(models, environments / "sentence-transformers"),
    ]
    left_out = {
        system.label: f"{system.python} is not there: make bench-peers"
        for system in found
        if not Path(system.python).exists()
    }
    if models.onnx_problem is not None:
        left_out.setdefault("infinity onnx", models.onnx_problem)
    return [system for system in found if system.label not in left_out], left_out


def _infinity(models: ModelFolders, environment: Path, engine: str) -> System:
    port = free_port()
    python = str(environment / "bin/python")
    return System(
        "infinity",
        engine,
        port,
        (
            # Its ONNX engine finds the file of a local model only where the model is ".".
            *("env", f"--chdir={models.peers}"),
            *(str(environment / "bin/infinity_emb"), "v2", "--model-id", "."),
            *("--served-model-name", MODEL_NAME, "--host", _HOST, "--port", str(port)),
            *("--url-prefix", "/v1", "--device", "cpu", "--pooling-method", "mean"),
            *("--engine", "optimum" if engine == "onnx" else engine),
            # Its warm-up takes its time, and ours comes before each cell.
            "--no-model-warmup",
            # Its access log would cost it a line for each request; ours is on.
            *("--log-level", "warning"),
        ),
        {
            **_OFFLINE,
            "INFINITY_ANONYMOUS_USAGE_STATS": "0",
            "HF_HUB_CACHE": str(models.hub_cache),
        },
        python,
    )


def _sentence_transformers(models: ModelFolders, environment: Path) -> System:
    port = free_port()
    python = str(environment / "bin/python")
    return System(
        "sentence-transformers",
        "torch",
        port,
        (
            *(python, "-m", "uvicorn", "st_server:app", "--app-dir", str(_PEER_SERVER)),
            *("--host", _HOST, "--port", str(port), "--no-access-log"),
        ),
        {**_OFFLINE, "ST_SERVER_MODEL": str(models.peers)},
        python,
    )


def _ray_environment(folder: Path) -> dict[str, str]:
    return {
        **_OFFLINE,
        "RAY_USAGE_STATS_ENABLED": "0",
        **_replica_ports("HTTP"),
        **_replica_ports("GRPC"),
        "RAY_TMPDIR": str(folder),
        # Every Ray has the same ports for these. HAProxy opens the first two on all interfaces, and
        # sends requests to the third when it holds the replica for down: to another Ray's, if that
        # has it, which answers 404.
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
    }


def _replica_ports(protocol: str) -> dict[str, str]:
    """HAProxy reaches replicas on ports that each Ray counts from 30000: two would share them."""
    first = free_ports(_RAY_PORTS)
    return {
        f"RAY_SERVE_DIRECT_INGRESS_MIN_{protocol}_PORT": str(first),
        f"RAY_SERVE_DIRECT_INGRESS_MAX_{protocol}_PORT": str(first + _RAY_PORTS - 1),
    }
