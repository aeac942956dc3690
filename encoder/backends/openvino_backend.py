"""The forward in OpenVINO: the faster runtime on a CPU.

The PyTorch model is converted in memory, pooling inside the graph. One thread is one stream: each
works on a small batch of its own, which keeps it in its core's cache. Nothing is sent anywhere:
OpenVINO's telemetry is kept out.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from encoder.backends.base import TokenBatch
from encoder.backends.openvino_conversion import convert, import_openvino
from encoder.backends.pooled_model import PooledModel
from encoder.errors import BackendError, ModelLoadError

__all__ = ["OpenVinoBackend"]

_BATCH_TOKENS = 1024
"""Per stream. Larger batches leave the cache, smaller ones leave the vector units idle."""
_PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16"}

_Vectors = npt.NDArray[np.float32]


class _Request(Protocol):
    """What is used of `openvino.InferRequest`.

    `AsyncInferQueue` is not used: it crashes when it is dropped with requests under way, and after
    one error it raises that error for ever.
    """

    def start_async(self, inputs: list[npt.NDArray[Any]]) -> None: ...
    def wait(self) -> None: ...
    def get_output_tensor(self, index: int) -> Any: ...  # noqa: ANN401 - OpenVINO has no types


class OpenVinoBackend:
    """A model in OpenVINO on the CPU.

    Args:
        model: The model in float32; it is converted and not needed afterwards.
        dtype: "float32" or "bfloat16".
        max_batch_tokens: Padded tokens per forward of one stream, or None for the default.
        num_threads: Streams of one thread each, or None for the CPUs that this process may use.

    Raises:
        ModelLoadError: OpenVINO is not installed, or cannot convert or compile the model.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        model: PooledModel,
        *,
        dtype: str,
        max_batch_tokens: int | None = None,
        num_threads: int | None = None,
    ) -> None:
        openvino = import_openvino("backend openvino", "use backend torch")
        streams = num_threads or _usable_cpus()
        self.streams = streams
        self.dtype = dtype
        self.dimension = model.dimension
        self.pad_token_id = model.pad_token_id
        self.max_batch_tokens = max_batch_tokens or _BATCH_TOKENS
        try:
            converted = _convert(openvino, model)
        except RuntimeError as error:
            raise _not_convertible(error) from error
        options = {
            "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[dtype],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            # Several actors on a machine would all be pinned to the same first cores.
            "ENABLE_CPU_PINNING": False,
        }

        def open_requests() -> list[_Request]:
            try:
                compiled = openvino.Core().compile_model(converted, "CPU", options)
            except RuntimeError as error:
                raise _not_convertible(error) from error
            # Twice the streams: none is idle while results are taken in order.
            return [compiled.create_infer_request() for _ in range(2 * streams)]

        self._open_requests: Callable[[], list[_Request]] = open_requests
        self._requests = open_requests()

    def forward(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, _Vectors]]:
        """Yield (position, vectors (B, H)) in the order of the batches."""
        idle = list(self._requests)
        running: deque[tuple[int, _Request]] = deque()
        is_finished = False
        try:
            for position, batch in enumerate(batches):
                if not idle:
                    finished, vectors = self._take(running)
                    idle.append(finished)
                    yield vectors
                request = idle.pop()
                with _errors_reported():
                    request.start_async([batch.input_ids, batch.attention_mask, batch.is_cls])
                running.append((position, request))
            while running:
                yield self._take(running)[1]
            is_finished = True
        finally:
            # After an error, or for a caller that stopped early: requests come to rest.
            for _, request in running:
                with suppress(RuntimeError):
                    request.wait()
            if not is_finished:
                # A compiled model that has failed fails again for good texts, also with new
                # requests (273 to 299 of 300 times measured): compile afresh.
                self._requests = self._open_requests()

    @staticmethod
    def _take(
        running: deque[tuple[int, _Request]],
    ) -> tuple[_Request, tuple[int, _Vectors]]:
        """Wait, without the GIL, for the oldest request; return it and a copy of its result."""
        position, request = running.popleft()
        with _errors_reported():
            request.wait()
        vectors = np.array(request.get_output_tensor(0).data, dtype=np.float32)  # (B, H)
        return request, (position, vectors)

    def close(self) -> None:
        """Free the model."""
        self._requests.clear()
        del self._open_requests


def _not_convertible(error: RuntimeError) -> ModelLoadError:
    return ModelLoadError(
        f"expected a model that OpenVINO can convert, found: {_cause(error)}; use backend torch"
    )


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Turn what OpenVINO raises into BackendError."""
    try:
        yield
    except RuntimeError as error:
        raise BackendError(f"expected a forward to finish, found: {_cause(error)}") from error


def _convert(openvino: ModuleType, model: PooledModel) -> Any:  # noqa: ANN401 - OpenVINO has no types
    ids = torch.ones((2, 8), dtype=torch.int32)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return convert(openvino, model, (ids, mask, torch.tensor([True, False])))


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cause(error: Exception) -> str:
    # The last line is the cause, those before it are places in OpenVINO's sources.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
