"""The forward in PyTorch: any CPU, and CUDA.

On CUDA batches are copied from pinned memory without waiting, up to two are on the way while the
next is prepared, and only pooled vectors come back. Texts are laid end to end where the model
allows it (`flat_model`), and an endpoint's small forwards are recorded (`cuda_graphs`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from encoder.backends.base import PackedTexts, TokenBatch
from encoder.backends.cuda_graphs import RecordedForwards
from encoder.backends.flat_model import FlatBatch, FlatModel, flat_model_of
from encoder.backends.memory import forward_within_memory, probe_token_budget
from encoder.backends.pooled_model import PooledModel
from encoder.backends.prepacked_model import prepack
from encoder.errors import BackendError, one_line

__all__ = ["TorchBackend"]

_logger = logging.getLogger(__name__)

_CPU_BATCH_TOKENS = 2048
_CPU_OVERHEAD_TOKENS = 48
_GPU_FORWARDS = 16
"""A sixteenth of the budget is taken for what starting a forward costs on a GPU (a guess)."""
_IN_FLIGHT = 2
_GPU_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Not cuDNN's, which takes 0.1 s for every new shape of a batch."""

_Vectors = npt.NDArray[np.float32]


class TorchBackend:
    """A model in PyTorch. Takes the model over: it is moved and cast in place.

    Args:
        model: The model in float32 on the CPU.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda" or "cuda:N".
        max_seq_length: Longest row, for the probe of a GPU's memory.
        max_batch_tokens: Padded tokens per forward, or None for the device's default.
        num_threads: CPU threads of one forward (of the whole process), or None to leave them.
    """

    name = "torch"
    packed: PackedTexts | None = None

    def __init__(
        self,
        model: PooledModel,
        *,
        dtype: str,
        device: str,
        max_seq_length: int,
        max_batch_tokens: int | None = None,
        num_threads: int | None = None,
    ) -> None:
        if num_threads is not None and device == "cpu":
            # Another thread, which may do the forwards, takes the number over with its first
            # operation on several threads: the embedding.
            torch.set_num_threads(num_threads)
        self.streams = 1
        self.dtype = dtype
        self.device = device
        self.dimension = model.dimension
        self.pad_token_id = model.pad_token_id
        self._device = torch.device(device)
        self._model: PooledModel | FlatModel = model.to(self._device, getattr(torch, dtype))
        self._max_seq_length = max_seq_length
        self._recorded: RecordedForwards | None = None
        if device == "cpu":
            prepack(model)
        else:
            self._model = flat_model_of(model) or model
        self.computes_padding = not isinstance(self._model, FlatModel)
        self.max_batch_tokens = max_batch_tokens or self._default_budget(max_seq_length)
        self.overhead_tokens = (
            _CPU_OVERHEAD_TOKENS if device == "cpu" else self.max_batch_tokens // _GPU_FORWARDS
        )

    def forward(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, _Vectors]]:
        """Yield (position, vectors (B, H)) in the order of the batches."""
        if self._device.type == "cuda":
            yield from self._forward_pipelined(batches)
            return
        for position, batch in enumerate(batches):
            yield position, self._forward_one(batch)

    def expect_short_texts(self) -> None:
        """Record small forwards on a GPU; on a CPU every shape is as good as any other."""
        if not isinstance(self._model, FlatModel) or self._recorded is not None:
            return
        try:
            self._recorded = RecordedForwards(
                self._model,
                self._device,
                max_seq_length=self._max_seq_length,
                pad_token_id=self.pad_token_id,
            )
        except (BackendError, RuntimeError) as error:
            _logger.warning("small forwards are not recorded: %s", one_line(error))
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Free the model."""
        del self._model, self._recorded
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward_pipelined(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, _Vectors]]:
        """Keep up to `_IN_FLIGHT` batches on the device while the next one is padded."""
        waiting: deque[tuple[int, _Pending | _Vectors]] = deque()
        for position, batch in enumerate(batches):
            waiting.append((position, self._start(batch)))
            if len(waiting) > _IN_FLIGHT:
                yield self._finish(*waiting.popleft())
        while waiting:
            yield self._finish(*waiting.popleft())

    def _start(self, batch: TokenBatch) -> _Pending | _Vectors:
        """Queue a batch, or do it in parts at once where it does not fit."""
        if batch.padded_tokens <= self.max_batch_tokens or len(batch) == 1:
            try:
                with _errors_reported():
                    return _Pending(self._launch(batch), self._device)
            except torch.OutOfMemoryError:
                _logger.warning("out of memory at %d tokens a batch", batch.padded_tokens)
            self._lower_budget(batch)
        return self._forward_one(batch)

    @staticmethod
    def _finish(position: int, pending: _Pending | _Vectors) -> tuple[int, _Vectors]:
        with _errors_reported():
            return position, pending.wait() if isinstance(pending, _Pending) else pending

    def _forward_one(self, batch: TokenBatch) -> _Vectors:
        return forward_within_memory(
            batch,
            self._run,
            lambda error: isinstance(error, torch.OutOfMemoryError),
            self._lower_budget,
            lambda: self.max_batch_tokens,
        )

    def _run(self, batch: TokenBatch) -> _Vectors:
        with _errors_reported():
            vectors: _Vectors = self._launch(batch).cpu().numpy()
            return vectors

    @torch.inference_mode()
    def _launch(self, batch: TokenBatch) -> torch.Tensor:
        """Return the vectors (B, H) on the device; a GPU may still be at work on them."""
        if isinstance(self._model, FlatModel):
            texts = FlatBatch.of(batch, self._model.uncounted)
            return self._launch_flat(self._model, texts, batch.all_cls)
        on_gpu = self._device.type == "cuda"
        with sdpa_kernel(_GPU_ATTENTION) if on_gpu else nullcontext():
            vectors: torch.Tensor = self._model(
                self._to_device(batch.input_ids).long(),
                self._to_device(batch.attention_mask).long(),
                self._to_device(batch.is_cls),
                has_padding=batch.has_padding,
                all_cls=batch.all_cls,
            )
        return vectors

    def _launch_flat(self, model: FlatModel, texts: FlatBatch, all_cls: bool) -> torch.Tensor:
        if self._recorded is not None:
            vectors = self._recorded.launch(texts)
            if vectors is not None:
                return vectors
        arrays = (self._to_device(array) for array in texts.arrays)
        found: torch.Tensor = model(*arrays, longest=texts.longest, all_cls=all_cls)
        return found

    def _to_device(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor

    def _lower_budget(self, batch: TokenBatch) -> None:
        """Never again try what did not fit."""
        self.max_batch_tokens = max(1, min(self.max_batch_tokens, batch.padded_tokens) // 2)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _default_budget(self, max_seq_length: int) -> int:
        if self._device.type != "cuda":
            return _CPU_BATCH_TOKENS
        return probe_token_budget(partial(self._fits, max_seq_length))

    def _fits(self, max_seq_length: int, tokens: int) -> bool:
        rows = max(1, tokens // max_seq_length)
        ids = np.full((rows, max_seq_length), self.pad_token_id, dtype=np.int32)
        mask = np.ones_like(ids)
        mask[:, -1] = 0  # the masked attention is the one that takes more memory
        try:
            self._launch(TokenBatch(ids, mask, np.zeros(rows, dtype=np.bool_))).cpu()
        except torch.OutOfMemoryError:
            return False
        finally:
            torch.cuda.empty_cache()
        return True


class _Pending:
    """Vectors on their way from a GPU."""

    def __init__(self, vectors: torch.Tensor, device: torch.device) -> None:
        self._host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        self._host.copy_(vectors, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> _Vectors:
        self._event.synchronize()
        vectors: _Vectors = self._host.numpy()
        return vectors


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Turn what PyTorch raises into BackendError, except running out of memory."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BackendError(
            f"expected a forward to finish, found: {reason[0]}; if the device was lost, restart"
        ) from error
