"""What `twofold serve` says of an endpoint that does not start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray import serve

from serving.app import DEPLOYMENT_NAME
from serving.serve import _why_not_started

SERVES_ERROR = RuntimeError(
    "Deploying application twofold failed: Failed to update the deployments ['QueryEndpoint']."
)
AS_SERVE_TELLS_IT = """The deployment failed to start 3 times in a row. [...] Error:
\x1b[36mray::ServeReplica:twofold:QueryEndpoint.initialize_and_get_metadata()\x1b[39m (pid=1)
    await self._replica_impl.initialize(deployment_config, rank, gang_context)
RuntimeError: Traceback (most recent call last):
  File "/app/serving/endpoint.py", line 53, in __init__
    check_corpus(settings.corpus, encoder)
encoder.errors.SpaceMismatchError: one line that says why
"""


OF_SEVERAL_LINES = """The deployment failed to start 3 times in a row. [...] Error:
RuntimeError: Traceback (most recent call last):
  File "/app/encoder/backends/torch_backend.py", line 80, in __init__
    self._model = model.to(device)
                  ^^^^^^^^^^^^^^^^
torch.AcceleratorError: CUDA error: device busy
CUDA kernel errors might be reported at some other API call.

Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""


def says(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    deployments = {DEPLOYMENT_NAME: SimpleNamespace(message=message)}
    applications = {"twofold": SimpleNamespace(deployments=deployments)}
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications=applications))


def test_the_replicas_own_error_is_told_and_not_serves(monkeypatch: pytest.MonkeyPatch):
    says(monkeypatch, AS_SERVE_TELLS_IT)
    expected = "encoder.errors.SpaceMismatchError: one line that says why"
    assert _why_not_started(SERVES_ERROR) == expected


def test_of_an_error_of_several_lines_the_first_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    says(monkeypatch, OF_SEVERAL_LINES)
    expected = "torch.AcceleratorError: CUDA error: device busy CUDA kernel errors might be"
    assert _why_not_started(SERVES_ERROR).startswith(expected)


@pytest.mark.parametrize("message", ["", "Upscaling from 1 to 2 replicas.", '  File "x", line 1'])
def test_where_no_replica_says_anything_serves_error_is_told(
    monkeypatch: pytest.MonkeyPatch, message: str
):
    says(monkeypatch, message)
    assert _why_not_started(SERVES_ERROR) == f"RuntimeError: {SERVES_ERROR}"


def test_where_serve_does_not_answer_its_first_error_is_told(monkeypatch: pytest.MonkeyPatch):
    def gone() -> None:
        raise ConnectionError("no cluster")

    monkeypatch.setattr(serve, "status", gone)
    assert _why_not_started(SERVES_ERROR) == f"RuntimeError: {SERVES_ERROR}"
