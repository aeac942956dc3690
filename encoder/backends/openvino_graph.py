"""A model that OpenVINO has compiled, and the requests that run on it.

Knows nothing of models, precisions or which graph suits which texts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from encoder.backends.base import PackedBatch, TokenBatch
from encoder.errors import BackendError

__all__ = ["CompiledGraph", "InferRequest", "openvino_cause"]

_Vectors = npt.NDArray[np.float32]


class InferRequest(Protocol):
    """What is used of `openvino.InferRequest`.

    `AsyncInferQueue` is not used: it crashes when it is dropped with requests under way, and after
    one error it raises that error for ever.
    """

    def start_async(self, inputs: list[npt.NDArray[Any]]) -> None:
        """Start a forward; the inputs must live until it has finished."""
        ...

    def wait(self) -> None:
        """Wait, without the GIL, until it has finished."""
        ...

    def get_output_tensor(self, index: int) -> Any:  # noqa: ANN401 - OpenVINO has no types
        """Return what came out."""
        ...


class CompiledGraph:
    """Runs batches on a compiled model, as many at once as it has requests.

    Args:
        open_requests: Compiles the model and returns its requests; called again after an error.
    """

    def __init__(self, open_requests: Callable[[], Sequence[InferRequest]]) -> None:
        self._open_requests = open_requests
        self._requests = open_requests()
        self._is_running = False

    def forward(
        self, batches: Iterable[TokenBatch | PackedBatch]
    ) -> Iterator[tuple[int, _Vectors]]:
        """Yield (position, vectors (B, H)) in the order of the batches.

        Raises:
            BackendError: A forward failed.
            RuntimeError: Batches given before have not all come back: both would take the same
                requests, and vectors would be mixed up.
        """
        if self._is_running:
            raise RuntimeError("expected batches one after the other, found others under way")
        self._is_running = True
        idle = list(self._requests)
        running: deque[tuple[int, InferRequest]] = deque()
        is_finished = False
        try:
            for position, batch in enumerate(batches):
                if not idle:
                    finished, vectors = _take(running)
                    idle.append(finished)
                    yield vectors
                request = idle.pop()
                with _errors_reported():
                    request.start_async(batch.arrays)
                running.append((position, request))
            while running:
                yield _take(running)[1]
            is_finished = True
        finally:
            self._is_running = False
            # After an error, or for a caller that stopped early: requests come to rest.
            for _, request in running:
                with suppress(RuntimeError):
                    request.wait()
            if not is_finished:
                # A compiled model that has failed fails again for good texts, also with new
                # requests (273 to 299 of 300 times measured): compile afresh.
                self._requests = self._open_requests()


def _take(
    running: deque[tuple[int, InferRequest]],
) -> tuple[InferRequest, tuple[int, _Vectors]]:
    """Wait for the oldest request; return it and a copy of its result."""
    position, request = running.popleft()
    with _errors_reported():
        request.wait()
    vectors = np.array(request.get_output_tensor(0).data, dtype=np.float32)  # (B, H)
    return request, (position, vectors)


def openvino_cause(error: Exception) -> str:
    """Return what an OpenVINO error says: its last line; those before are places in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Turn what OpenVINO raises into BackendError."""
    try:
        yield
    except RuntimeError as error:
        raise BackendError(
            f"expected a forward to finish, found: {openvino_cause(error)}"
        ) from error
