"""The forward in OpenVINO: the faster runtime on a CPU.

The PyTorch model is converted in memory, pooling inside the graph. One thread is one stream: each
works on a small batch of its own, which keeps it in its core's cache. Nothing is sent anywhere:
OpenVINO's telemetry is kept out.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
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
            compiled = openvino.Core().compile_model(
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
            self._requests = openvino.AsyncInferQueue(compiled, streams)
        except RuntimeError as error:
            raise ModelLoadError(
                f"expected a model that OpenVINO can convert, found: {_first_line(error)}; "
                "use backend torch"
            ) from error
        self._done: SimpleQueue[tuple[int, _Vectors]] = SimpleQueue()
        self._requests.set_callback(self._on_done)

    def forward(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, _Vectors]]:
        """Yield (position, vectors (B, H)) as the streams finish."""
        started = 0
        try:
            for batch in batches:
                # Waits, without the GIL, until a stream is free.
                self._requests.start_async(
                    [batch.input_ids, batch.attention_mask, batch.is_cls], started
                )
                started += 1
                while not self._done.empty():
                    yield self._done.get()
            self._requests.wait_all()
            while not self._done.empty():
                yield self._done.get()
        except RuntimeError as error:
            raise BackendError(
                f"expected a forward to finish, found: {_first_line(error)}"
            ) from error
        finally:
            self._abandon()

    def close(self) -> None:
        """Free the model."""
        del self._requests

    def _on_done(self, request: _Request, position: int) -> None:
        """Take a finished request's vectors, in OpenVINO's thread; the request is used again."""
        self._done.put((position, np.array(request.get_output_tensor(0).data, dtype=np.float32)))

    def _abandon(self) -> None:
        """Let streams come to rest and drop what nobody took (the caller stopped early)."""
        self._requests.wait_all()
        while not self._done.empty():
            self._done.get()


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


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
