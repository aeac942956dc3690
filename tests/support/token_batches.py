"""Batches of random tokens, and a backend to compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encoder.backends.base import TokenBatch
from encoder.backends.pooled_model import load_pooled_model
from encoder.backends.torch_backend import TorchBackend

__all__ = ["token_batch", "torch_backend"]


def token_batch(lengths: list[int], *, seed: int = 0, padded_length: int = 0) -> TokenBatch:
    generator = np.random.default_rng(seed)
    rows = [generator.integers(1000, 20_000, length).astype(np.int32) for length in lengths]
    is_cls = np.arange(len(rows)) % 2 == 0
    return TokenBatch.pad(rows, is_cls, padded_length=padded_length or max(lengths), pad_token_id=0)


def torch_backend(folder: Path, **options: object) -> TorchBackend:
    chosen = {"dtype": "float32", "device": "cpu", "max_seq_length": 128, **options}
    return TorchBackend(load_pooled_model(folder), **chosen)  # type: ignore[arg-type]
