"""OpenVINO: graphs for lone texts, streams, and texts that share rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoder.backends.base import PackedBatch, TokenBatch
from encoder.backends.choice import detect_hardware
from encoder.backends.converted_model import convert_packed_model, convert_pooled_model
from encoder.backends.fidelity import lowest_cosine
from encoder.backends.openvino_backend import OpenVinoBackend, _Compiler
from encoder.backends.openvino_graph import CompiledGraph
from encoder.backends.openvino_packed import PackedGraphs, proven
from encoder.backends.packed_model import PackedModel, can_pack
from encoder.backends.pooled_model import PooledModel, load_pooled_model
from encoder.backends.select import open_backend
from encoder.errors import ModelLoadError
from encoder.settings import EncoderSettings
from support.models import minilm_folder
from support.token_batches import token_batch, torch_backend


@pytest.fixture(scope="module")
def openvino_backend(tiny_model: Path) -> Iterator[OpenVinoBackend]:
    opened = OpenVinoBackend(
        convert_pooled_model(load_pooled_model(tiny_model)), dtype="float32", num_threads=2
    )
    yield opened
    opened.close()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 60, 64, 65, 100])
def test_a_text_that_comes_alone_has_the_vector_that_it_has_among_others(
    openvino_backend: OpenVinoBackend, length: int
) -> None:
    alone = token_batch([length], seed=length)
    among_many = [alone, *(token_batch([length, 3], seed=seed) for seed in range(20))]
    expected = dict(openvino_backend.forward(among_many))[0]
    assert expected.shape == (1, 32)

    ((position, before),) = openvino_backend.forward([alone])
    openvino_backend.expect_short_texts()
    ((_, after),) = openvino_backend.forward([alone])

    assert position == 0
    np.testing.assert_allclose(before, expected, atol=2e-5)
    np.testing.assert_allclose(after, expected, atol=2e-5)


def test_graphs_for_single_texts_take_only_single_texts_that_fit(
    openvino_backend: OpenVinoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino_backend.expect_short_texts()
    taken: list[tuple[int, ...]] = []
    for graph in openvino_backend._single.values():
        monkeypatch.setattr(
            graph,
            "forward",
            lambda batches, run=graph.forward: (
                taken.extend(batch.input_ids.shape for batch in batches),
                run(batches),
            )[1],
        )

    for lengths in ([12], [13], [16], [17], [40], [65], [12, 12]):
        list(openvino_backend.forward([token_batch(lengths)]))
    list(openvino_backend.forward([token_batch([12]), token_batch([13])]))

    assert taken == [(1, 16), (1, 16), (1, 16), (1, 24), (1, 64)]


def test_a_graph_that_gives_lone_texts_other_vectors_is_not_used(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compile_right = _Compiler.compile

    def compile_wrong_of_24(self: _Compiler, **asked: Any) -> CompiledGraph:
        graph = compile_right(self, **asked)
        if (asked.get("shapes") or [()])[0] == (1, 24):
            right = graph.forward
            graph.forward = lambda batches: ((n, v[:, ::-1]) for n, v in right(batches))  # type: ignore[method-assign]
        return graph

    monkeypatch.setattr(_Compiler, "compile", compile_wrong_of_24)
    backend = OpenVinoBackend(
        convert_pooled_model(load_pooled_model(tiny_model)), dtype="float32", num_threads=2
    )
    backend.expect_short_texts()
    assert sorted(backend._single) == [16, 32, 64]
    assert "24 tokens come out otherwise" in caplog.text
    backend.close()


@pytest.mark.skipif(not detect_hardware().cpu_bfloat16, reason="this CPU has no bfloat16")
def test_a_lone_text_of_any_length_has_float32s_vector_in_bfloat16() -> None:
    reference = torch_backend(minilm_folder())
    converted = convert_pooled_model(load_pooled_model(minilm_folder()))
    backend = OpenVinoBackend(converted, dtype="bfloat16", num_threads=2)
    backend.expect_short_texts()
    for length in range(1, 72):
        batch = token_batch([length], seed=length)
        [(_, expected)] = reference.forward([batch])
        [(_, found)] = backend.forward([batch])
        assert lowest_cosine(found, expected) >= 0.999, length
    backend.close()
    reference.close()


def test_a_graph_refuses_batches_while_others_are_under_way(
    openvino_backend: OpenVinoBackend,
) -> None:
    batches = [token_batch([5], seed=seed) for seed in range(9)]
    under_way = openvino_backend._few.forward(batches)
    next(under_way)

    with pytest.raises(RuntimeError, match="one after the other, found others under way"):
        next(openvino_backend._few.forward(batches))

    assert len(list(under_way)) == 8
    assert len(list(openvino_backend._few.forward(batches))) == 9


def test_streams_share_a_model_in_bfloat16_only(tiny_model: Path) -> None:
    converted = convert_pooled_model(load_pooled_model(tiny_model))
    streams, budgets = {}, {}
    for dtype in ("float32", "bfloat16"):
        backend = OpenVinoBackend(converted, dtype=dtype, num_threads=2)
        streams[dtype] = backend.streams
        budgets[dtype] = backend.streams * backend.max_batch_tokens
        backend.close()

    # In float32 one stream of two gave wrong vectors: docs/decisions.md, 2026-11-24.
    assert streams == {"float32": 1, "bfloat16": 2}
    assert budgets["float32"] == budgets["bfloat16"]


# Texts that share rows


def packed_batch(rows: list[list[int]], *, seed: int = 0) -> tuple[PackedBatch, list[np.ndarray]]:
    """Return rows of texts of these lengths, and the texts; every second one is pooled by [CLS]."""
    generator = np.random.default_rng(seed)
    texts = [
        [generator.integers(1000, 20_000, length).astype(np.int32) for length in row]
        for row in rows
    ]
    flat = [text for row in texts for text in row]
    is_cls = np.arange(len(flat)) % 2 == 0
    packed = PackedBatch.pack(texts, is_cls, row_tokens=64, max_texts=8, pad_token_id=0)
    return packed, flat


def test_texts_lie_end_to_end_in_a_row_each_counted_from_its_own_beginning() -> None:
    rows = [[np.array([7, 8, 9]), np.array([5])], [np.array([4, 4])]]

    packed = PackedBatch.pack(
        rows, np.array([True, False, True]), row_tokens=5, max_texts=2, pad_token_id=1
    )

    assert packed.input_ids.tolist() == [[7, 8, 9, 5, 1], [4, 4, 1, 1, 1]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 0], [0, 1, 0, 0, 0]]
    assert packed.text_ids.tolist() == [[1, 1, 1, 2, 0], [3, 3, 0, 0, 0]]
    assert packed.starts.tolist() == [0, 3, 5, 0]
    assert packed.is_cls.tolist() == [True, False, True, False]


def test_texts_that_share_a_row_have_the_vectors_that_they_have_alone(tiny_model: Path) -> None:
    backend = open_backend(
        tiny_model,
        EncoderSettings(model=str(tiny_model), backend="openvino", dtype="float32"),
        max_seq_length=128,
        probe=[],
    )
    assert backend.packed is None
    backend.expect_short_texts()
    rows = [[1, 2, 3, 4, 5, 6, 7, 8], [64], [20, 30, 14], [40, 3]]
    calls = [packed_batch((rows * 2)[:count], seed=count) for count in (4, 1, 8, 3, 1, 2)]

    found = dict(backend.packed.forward([packed for packed, _ in calls]))

    assert sorted(found) == list(range(len(calls)))
    for position, (packed, texts) in enumerate(calls):
        assert found[position].shape == (8 * len(packed.input_ids), 32)
        for index, text in enumerate(texts):
            alone = TokenBatch.pad(
                [text], np.array([index % 2 == 0]), padded_length=len(text), pad_token_id=0
            )
            ((_, expected),) = backend.forward([alone])
            np.testing.assert_allclose(found[position][index], expected[0], atol=2e-5)
    backend.close()
    assert backend.packed is None


def test_rows_are_not_shared_where_texts_would_come_out_otherwise(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Confused(PackedModel):
        """Lets all texts of a row attend to each other."""

        def forward(self, ids, positions, text_ids, starts, is_cls):
            mixed = torch.where(text_ids > 0, 1, 0)[:, None, :, None] >= 0
            output = self.transformer(
                input_ids=ids, position_ids=positions, attention_mask=mixed.expand(-1, 1, -1, 64)
            )
            return output.last_hidden_state.flatten(0, 1)[starts.long()]

    model = load_pooled_model(tiny_model)
    confused = Confused(model)

    class Graph:
        def forward(self, batches):
            with torch.inference_mode():
                for position, batch in enumerate(batches):
                    arrays = [torch.from_numpy(array) for array in batch.arrays]
                    yield position, confused(*arrays).numpy()

    backend = torch_backend(tiny_model)

    packed = PackedGraphs({1: Graph(), 4: Graph()}, streams=1)  # type: ignore[dict-item]

    assert proven(packed, backend.forward, 0) is None
    assert "come out otherwise" in caplog.text


def ready_for_short_texts(
    folder: Path,
    *,
    dtype: str = "float32",
    num_threads: int = 2,
    convert_packed: Callable[[PooledModel], object] = convert_packed_model,
) -> OpenVinoBackend:
    model = load_pooled_model(folder)
    backend = OpenVinoBackend(
        convert_pooled_model(model),
        dtype=dtype,
        num_threads=num_threads,
        convert_packed=lambda: convert_packed(model),
    )
    backend.expect_short_texts()
    return backend


def test_a_larger_model_holds_its_weights_fewer_times(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    for small in (150_000_000, 1_000):
        monkeypatch.setattr("encoder.backends.openvino_backend._SMALL_BYTES", small)
        backend = ready_for_short_texts(tiny_model)
        counts.append(backend.packed.limits.row_counts)
        backend.close()

    assert counts == [[1, 2, 3, 4, 8], [1, 4]]


@pytest.mark.skipif(not detect_hardware().cpu_bfloat16, reason="this CPU has no bfloat16")
def test_with_many_threads_parts_are_computed_at_once(tiny_model: Path) -> None:
    backend = ready_for_short_texts(tiny_model, dtype="bfloat16", num_threads=8)
    calls = [packed_batch([[20, 30]], seed=seed) for seed in range(9)]

    found = dict(backend.packed.forward([packed for packed, _ in calls]))

    assert backend.packed.limits.streams == 2
    for position, (_, texts) in enumerate(calls):
        alone = [
            TokenBatch.pad([text], np.array([is_cls]), padded_length=len(text), pad_token_id=0)
            for text, is_cls in zip(texts, (True, False), strict=True)
        ]
        expected = np.concatenate([vectors for _, vectors in backend.forward(alone)])
        assert lowest_cosine(found[position][:2], expected) > 0.999
    backend.close()


def test_an_endpoint_starts_where_rows_cannot_be_shared(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(model: PooledModel) -> None:
        raise ModelLoadError("expected a model that OpenVINO can convert, found: another")

    def convert_something_else(model: PooledModel) -> object:
        return convert_pooled_model(model).graph

    for convert in (refuse, convert_something_else):
        caplog.clear()
        backend = ready_for_short_texts(tiny_model, convert_packed=convert)

        assert backend.packed is None
        assert "short texts cannot share rows: expected a model" in caplog.text
        assert len(list(backend.forward([token_batch([12])]))) == 1
        backend.close()


def test_only_architectures_that_take_positions_and_masks_share_rows(tiny_model: Path) -> None:
    model = load_pooled_model(tiny_model)
    assert can_pack(model)

    model.transformer.config.model_type = "mpnet"

    assert not can_pack(model)


# What is installed


def test_openvino_that_is_not_installed_says_how_to_install_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(ModelLoadError, match=r"pip install 'twofold\[cpu\]'"):
        OpenVinoBackend(convert_pooled_model(load_pooled_model(tiny_model)), dtype="float32")


def test_openvino_telemetry_is_never_loaded(tiny_model: Path) -> None:
    OpenVinoBackend(convert_pooled_model(load_pooled_model(tiny_model)), dtype="float32").close()

    assert "openvino_telemetry" not in sys.modules
