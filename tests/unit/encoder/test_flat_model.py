"""Texts laid end to end come out as they do in padded rows; a reference stands in for the GPU."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from encoder.backends.base import TokenBatch
from encoder.backends.cuda_graphs import RecordedForwards, filled_up
from encoder.backends.flat_model import FlatBatch, FlatModel, flat_model_of
from encoder.backends.pooled_model import PooledModel
from encoder.backends.torch_backend import TorchBackend
from encoder.errors import BackendError
from support.transformers import HIDDEN_SIZE, tiny_transformer, vectors_of

PAD = 0
KINDS = ("bert", "roberta", "xlm-roberta")


def one_by_one(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    query_starts: torch.Tensor,
    key_starts: torch.Tensor,
    longest_query: int,
    longest_key: int,
) -> torch.Tensor:
    """Do what `varlen_attn` does, which needs a GPU, a text at a time."""
    assert int(query_starts.diff().max()) <= longest_query
    assert int(key_starts.diff().max()) <= longest_key
    attended = torch.zeros_like(queries)
    for text in range(len(query_starts) - 1):
        of_queries = slice(int(query_starts[text]), int(query_starts[text + 1]))
        of_keys = slice(int(key_starts[text]), int(key_starts[text + 1]))
        if of_keys.start == of_keys.stop:
            continue
        query, key, value = (
            part.transpose(0, 1) for part in (queries[of_queries], keys[of_keys], values[of_keys])
        )
        attended[of_queries] = functional.scaled_dot_product_attention(query, key, value).transpose(
            0, 1
        )
    return attended


def a_batch(lengths: list[int], is_cls: list[bool]) -> TokenBatch:
    ids = np.random.default_rng(0)
    return TokenBatch.pad(
        [ids.integers(5, 999, length).astype(np.int32) for length in lengths],
        np.array(is_cls),
        padded_length=max(lengths) + 1,
        pad_token_id=PAD,
    )


def a_model(kind: str) -> PooledModel:
    return PooledModel(tiny_transformer(kind), HIDDEN_SIZE, PAD)


@torch.inference_mode()
def flat_vectors(model: FlatModel, texts: FlatBatch, *, all_cls: bool = False) -> np.ndarray:
    arrays = [torch.from_numpy(array) for array in texts.arrays]
    vectors: np.ndarray = model(*arrays, longest=texts.longest, all_cls=all_cls).numpy()
    return vectors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("all_cls", [False, True])
def test_texts_end_to_end_have_the_vectors_that_they_have_in_padded_rows(
    kind: str, all_cls: bool
) -> None:
    model = a_model(kind)
    flat = flat_model_of(model, one_by_one)
    assert flat is not None
    batch = a_batch([7, 3, 12, 1], [True, all_cls, True, all_cls])

    found = flat_vectors(flat, FlatBatch.of(batch, flat.uncounted), all_cls=all_cls)

    np.testing.assert_allclose(found, vectors_of(model, batch, all_cls=False), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_that_stands_within_a_text_is_counted_as_the_model_counts(kind: str) -> None:
    model = a_model(kind)
    flat = flat_model_of(model, one_by_one)
    assert flat is not None
    batch = a_batch([6, 5, 3], [True, False, True])
    padding = model.transformer.config.pad_token_id
    batch.input_ids[0, 2] = batch.input_ids[1, 3] = padding

    found = flat_vectors(flat, FlatBatch.of(batch, flat.uncounted))

    np.testing.assert_allclose(found, vectors_of(model, batch, all_cls=False), atol=2e-5)


def test_a_batch_is_laid_end_to_end_without_its_padding() -> None:
    batch = a_batch([2, 3], [True, False])

    texts = FlatBatch.of(batch)

    assert texts.input_ids.tolist() == [*batch.input_ids[0, :2], *batch.input_ids[1, :3]]
    assert texts.positions.tolist() == [0, 1, 0, 1, 2]
    assert texts.starts.tolist() == [0, 2, 5]
    assert texts.longest >= 3
    assert {array.dtype for array in texts.arrays} == {np.dtype("int32"), np.dtype("bool")}


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    more_tokens=st.integers(0, 50),
    more_texts=st.integers(0, 5),
)
def test_what_fills_a_graph_up_changes_no_vector(
    lengths: list[int], more_tokens: int, more_texts: int
) -> None:
    flat = FlatModel(tiny_transformer("bert"), one_by_one).eval()
    texts = FlatBatch.of(a_batch(lengths, [number % 2 == 0 for number in range(len(lengths))]))
    tokens = len(texts.input_ids) + more_tokens
    fillers = -(-more_tokens // 20)

    filled = filled_up(
        texts, tokens, len(lengths) + fillers + more_texts, max_seq_length=20, pad_token_id=PAD
    )

    assert filled is not None
    assert len(filled.input_ids) == len(filled.positions) == filled.starts[-1] == tokens
    assert len(filled.starts) - 1 == len(filled.is_cls) == len(lengths) + fillers + more_texts
    assert np.diff(filled.starts).max() <= 20
    assert filled.positions.max() < 20
    if filled.longest < 20:
        filled = FlatBatch(*filled.arrays, longest=20)
    found = flat_vectors(flat, filled)[: len(lengths)]
    np.testing.assert_allclose(found, flat_vectors(flat, texts), atol=2e-5)


@pytest.mark.parametrize(
    ("tokens", "texts"), [(4, 9), (8, 1), (8, 2)], ids=["tokens", "texts", "room for the padding"]
)
def test_a_graph_that_is_too_small_is_not_filled(tokens: int, texts: int) -> None:
    batch = FlatBatch.of(a_batch([2, 3], [True, True]))

    assert filled_up(batch, tokens, texts, max_seq_length=8, pad_token_id=PAD) is None
    assert filled_up(batch, 8, 3, max_seq_length=8, pad_token_id=PAD) is not None
    assert filled_up(batch, 5, 2, max_seq_length=8, pad_token_id=PAD) is not None


def test_a_model_that_comes_out_otherwise_is_not_laid_end_to_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def across_texts(queries: torch.Tensor, *others: object) -> torch.Tensor:
        return queries.flip(0)

    assert flat_model_of(a_model("bert"), across_texts) is None
    assert "come out otherwise" in caplog.text


def test_other_architectures_and_devices_stay_with_padded_rows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")

    assert flat_model_of(PooledModel(tiny_transformer("mpnet"), HIDDEN_SIZE, 1), one_by_one) is None
    # PyTorch's attention over texts of any lengths does not run on a CPU.
    assert flat_model_of(a_model("bert")) is None
    assert "cannot be laid end to end" in caplog.text


class UnrecordedGraph:
    """Runs the model where a graph would be replayed, which needs a GPU."""

    replayed: ClassVar[list[int]] = []
    error = 0.0

    def __init__(
        self,
        model: FlatModel,
        device: torch.device,
        tokens: int,
        texts: int,
        longest: int,
        other: object,
    ) -> None:
        self.texts = texts
        self._model, self._tokens, self._longest = model, tokens, longest

    @torch.inference_mode()
    def replay(self, batch: FlatBatch) -> torch.Tensor:
        assert len(batch.input_ids) == self._tokens
        assert len(batch.is_cls) == self.texts
        self.replayed.append(self._tokens)
        arrays = [torch.from_numpy(array) for array in batch.arrays]
        vectors: torch.Tensor = self._model(*arrays, longest=self._longest)
        return vectors + self.error * torch.arange(HIDDEN_SIZE)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> type[UnrecordedGraph]:
    monkeypatch.setattr("encoder.backends.cuda_graphs._Graph", UnrecordedGraph)
    monkeypatch.setattr(UnrecordedGraph, "replayed", [])
    return UnrecordedGraph


def recorded(model: FlatModel, max_seq_length: int = 512) -> RecordedForwards:
    return RecordedForwards(
        model, torch.device("cpu"), max_seq_length=max_seq_length, pad_token_id=PAD
    )


def test_the_backend_replays_small_forwards_and_computes_the_others(
    graphs: type[UnrecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = a_model("bert")
    batches = [
        a_batch([7, 3], [True, False]),
        a_batch([40] * 130, [number % 2 == 0 for number in range(130)]),  # more than 4,096 tokens
        a_batch([12], [True]),
    ]
    expected = [vectors_of(model, batch, all_cls=False) for batch in batches]
    backend = TorchBackend(
        model, dtype="float32", device="cpu", max_seq_length=512, max_batch_tokens=8_192
    )
    monkeypatch.setattr(backend, "_model", FlatModel(tiny_transformer("bert"), one_by_one).eval())
    backend.expect_short_texts()
    graphs.replayed.clear()

    found = dict(backend.forward(batches))

    assert graphs.replayed == [16, 16]
    for position, vectors in enumerate(expected):
        np.testing.assert_allclose(found[position], vectors, atol=2e-5)


def test_a_text_that_has_no_room_in_one_graph_takes_the_next(
    graphs: type[UnrecordedGraph],
) -> None:
    flat = FlatModel(tiny_transformer("bert"), one_by_one).eval()
    small = recorded(flat)
    graphs.replayed.clear()

    # 16 tokens, but more texts than a graph of 16 tokens has.
    texts = FlatBatch.of(a_batch([2] * 8, [True] * 8))
    found = small.launch(texts)

    assert graphs.replayed == [32]
    assert found is not None
    np.testing.assert_allclose(found.numpy(), flat_vectors(flat, texts), atol=2e-5)


@pytest.mark.parametrize("max_seq_length", [3, 8, 12, 15, 16, 512])
def test_graphs_are_recorded_however_short_the_texts_are_cut(
    graphs: type[UnrecordedGraph], max_seq_length: int
) -> None:
    flat = FlatModel(tiny_transformer("bert"), one_by_one).eval()
    texts = FlatBatch.of(a_batch([2], [True]))

    found = recorded(flat, max_seq_length).launch(texts)

    assert found is not None
    np.testing.assert_allclose(found.numpy(), flat_vectors(flat, texts), atol=2e-5)


def test_graphs_that_give_other_vectors_are_not_used(
    graphs: type[UnrecordedGraph], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flat = FlatModel(tiny_transformer("bert"), one_by_one).eval()
    monkeypatch.setattr(graphs, "error", 1.0)
    with pytest.raises(BackendError, match="recorded forward of 4096 tokens"):
        recorded(flat)

    backend = TorchBackend(a_model("bert"), dtype="float32", device="cpu", max_seq_length=512)
    monkeypatch.setattr(backend, "_model", flat)
    backend.expect_short_texts()
    batch = a_batch([7, 3], [True, False])
    graphs.replayed.clear()
    [(_, found)] = backend.forward([batch])

    assert graphs.replayed == []
    assert "small forwards are not recorded" in caplog.text
    np.testing.assert_allclose(found, flat_vectors(flat, FlatBatch.of(batch)), atol=2e-5)
