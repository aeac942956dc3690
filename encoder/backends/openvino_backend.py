"""The forward in OpenVINO: the faster runtime on a CPU.

The PyTorch model is converted in memory, pooling inside the graph. One thread is one stream: each
works on a small batch of its own, which keeps it in its core's cache. Nothing is sent anywhere:
OpenVINO's telemetry is kept out.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from encoder.backends.base import TokenBatch
from encoder.backends.pooled_model import PooledModel, quiet_transformers
from encoder.errors import BackendError, ModelLoadError

__all__ = ["OpenVinoBackend"]

_BATCH_TOKENS = 1024
"""Per stream. Larger batches leave the cache, smaller ones leave the vector units idle."""
_PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16"}

_Vectors = npt.NDArray[np.float32]


class _Request(Protocol):
    """What is read of `openvino.InferRequest`."""

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
        openvino = _import_openvino()
        streams = num_threads or _usable_cpus()
        self.dtype = dtype
        self.dimension = model.dimension
        self.pad_token_id = model.pad_token_id
        self.max_batch_tokens = max_batch_tokens or _BATCH_TOKENS
        try:
            self._compiled = openvino.Core().compile_model(
                _convert(openvino, model),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[dtype],
                    "NUM_STREAMS": streams,
                    "INFERENCE_NUM_THREADS": streams,
                    # Several actors on a machine would all be pinned to the same first cores.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except RuntimeError as error:
            raise ModelLoadError(
                f"expected a model that OpenVINO can convert, found: {_cause(error)}; "
                "use backend torch"
            ) from error
        self._open_requests: Callable[[], Any] = partial(
            openvino.AsyncInferQueue, self._compiled, streams
        )
        self._start_afresh()

    def forward(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, _Vectors]]:
        """Yield (position, vectors (B, H)) as the streams finish."""
        is_finished = False
        try:
            for position, batch in enumerate(batches):
                inputs = [batch.input_ids, batch.attention_mask, batch.is_cls]
                with _errors_reported():
                    # Waits, without the GIL, until a stream is free.
                    self._requests.start_async(inputs, position)
                yield from self._drained()
            with _errors_reported():
                self._requests.wait_all()
            yield from self._drained()
            is_finished = True
        finally:
            if not is_finished:
                self._start_afresh()

    def _drained(self) -> Iterator[tuple[int, _Vectors]]:
        """Yield what the streams have finished by now."""
        while not self._done.empty():
            yield self._done.get()

    def _start_afresh(self) -> None:
        """Open new requests and leave the old ones alone.

        They may be at work for a caller that has stopped, and after an error OpenVINO's queue
        raises that error for ever.
        """
        done: SimpleQueue[tuple[int, _Vectors]] = SimpleQueue()

        def take(request: _Request, position: int) -> None:
            # In OpenVINO's thread, before the request is used again: hence the copy.
            done.put((position, np.array(request.get_output_tensor(0).data, dtype=np.float32)))

        self._done = done
        self._requests = self._open_requests()
        self._requests.set_callback(take)

    def close(self) -> None:
        """Free the model."""
        del self._requests, self._open_requests, self._compiled


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Turn what OpenVINO raises into BackendError."""
    try:
        yield
    except RuntimeError as error:
        raise BackendError(f"expected a forward to finish, found: {_cause(error)}") from error


def _convert(openvino: ModuleType, model: PooledModel) -> object:
    ids = torch.ones((2, 8), dtype=torch.int32)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    is_cls = torch.tensor([True, False])
    with torch.inference_mode(), quiet_transformers(), warnings.catch_warnings():
        # torch.jit.trace warns of every Python branch that it fixes; the parity tests cover them.
        warnings.simplefilter("ignore")
        return openvino.convert_model(
            model,
            example_input=(ids, mask, is_cls),
            # A copy: OpenVINO would go on reading memory that PyTorch owns.
            share_weights=False,
            input=[openvino.PartialShape([-1, -1])] * 2 + [openvino.PartialShape([-1])],
        )


def _import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which would report the import and each conversion."""
    blocked = "openvino_telemetry" not in sys.modules
    if blocked:
        # None makes the import fail, and OpenVINO then falls back to its own silent stand-in.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise ModelLoadError(
            "backend openvino needs the package openvino, which is not installed; "
            "pip install twofold[cpu], or use backend torch"
        ) from error
    finally:
        if blocked:
            del sys.modules["openvino_telemetry"]
    module: ModuleType = openvino
    return module


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cause(error: Exception) -> str:
    # The last line is the cause, those before it are places in OpenVINO's sources.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
