"""Budgets on a device that is full."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encoder.backends.base import TokenBatch
from encoder.backends.memory import forward_within_memory, probe_token_budget
from encoder.errors import BackendError
from support.token_batches import token_batch, torch_backend


def fits_up_to(limit: int) -> tuple[list[int], object]:
    tried = []

    def fits(tokens: int) -> bool:
        tried.append(tokens)
        return tokens <= limit

    return tried, fits


@pytest.mark.parametrize(
    ("limit", "expected"), [(0, 16), (16, 16), (40, 32), (64, 64), (255, 128), (10_000, 256)]
)
def test_the_probe_doubles_until_memory_runs_out(limit: int, expected: int) -> None:
    tried, fits = fits_up_to(limit * 1024)

    assert probe_token_budget(fits) == expected * 1024  # type: ignore[arg-type]
    assert max(tried) <= 256 * 1024


class SmallDevice:
    """Runs out of memory beyond `limit` padded tokens; a vector is its row's first id."""

    def __init__(self, limit: int, budget: int = 1_000_000) -> None:
        self.limit, self.budget = limit, budget
        self.ran: list[int] = []
        self.failed: list[int] = []

    def run(self, batch: TokenBatch) -> np.ndarray:
        if batch.padded_tokens > self.limit:
            self.failed.append(batch.padded_tokens)
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.ran.append(batch.padded_tokens)
        return batch.input_ids[:, :1].astype(np.float32)

    def lower(self, batch: TokenBatch) -> None:
        self.budget = batch.padded_tokens // 2

    def encode(self, batch: TokenBatch) -> np.ndarray:
        return forward_within_memory(
            batch,
            self.run,
            lambda error: isinstance(error, torch.OutOfMemoryError),
            self.lower,
            lambda: self.budget,
        )


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 16])
def test_a_batch_that_does_not_fit_is_done_in_parts_in_its_order(rows: int) -> None:
    batch = token_batch([10] * rows)
    device = SmallDevice(limit=25)

    vectors = device.encode(batch)

    assert vectors[:, 0].tolist() == batch.input_ids[:, 0].tolist()
    assert sum(device.ran) == batch.padded_tokens


def test_what_did_not_fit_once_is_not_tried_again() -> None:
    device = SmallDevice(limit=80)

    device.encode(token_batch([10] * 16))
    device.encode(token_batch([10] * 16))

    assert device.failed == [160]


def test_one_text_that_does_not_fit_is_a_backend_error() -> None:
    device = SmallDevice(limit=5)

    with pytest.raises(BackendError, match="one text of 10 tokens to fit"):
        device.encode(token_batch([10, 10, 10]))


def test_other_errors_are_not_taken_for_out_of_memory() -> None:
    def fail(batch: TokenBatch) -> np.ndarray:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        forward_within_memory(
            token_batch([4, 4]), fail, lambda error: False, lambda batch: None, lambda: 100
        )


def test_the_torch_backend_halves_its_budget_and_goes_on(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = torch_backend(tiny_model)
    batch = token_batch([10] * 8)
    ((_, expected),) = backend.forward([batch])
    launch = backend._launch

    def launch_on_a_small_device(part: TokenBatch) -> torch.Tensor:
        if part.padded_tokens > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return launch(part)

    monkeypatch.setattr(backend, "_launch", launch_on_a_small_device)

    ((_, vectors),) = backend.forward([batch])

    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert backend.max_batch_tokens == 20
