"""Documents need the last layer for [CLS] alone: less is computed, and the vectors are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from encoder.backends.base import TokenBatch
from encoder.backends.choice import detect_hardware
from encoder.backends.cls_only import ClsOnly, cls_only_of
from encoder.backends.converted_model import ConvertedModel, convert_pooled_model
from encoder.backends.fidelity import lowest_cosine
from encoder.backends.openvino_backend import OpenVinoBackend
from encoder.backends.pooled_model import PooledModel, load_pooled_model
from encoder.backends.torch_backend import TorchBackend
from support.transformers import HIDDEN_SIZE, tiny_transformer, vectors_of


def transformer(kind: str, **more: object) -> nn.Module:
    return tiny_transformer(kind, **{"num_hidden_layers": 3, **more})


def documents(*lengths: int, is_cls: bool = True, seed: int = 0) -> TokenBatch:
    generator = np.random.default_rng(seed)
    rows = [generator.integers(5, 1000, length).astype(np.int32) for length in lengths]
    poolings = np.full(len(rows), is_cls)
    return TokenBatch.pad(rows, poolings, padded_length=max(lengths), pad_token_id=0)


@pytest.mark.parametrize("lengths", [(1,), (2,), (17,), (9, 9, 9), (12, 5, 1), (64, 3)])
@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_the_first_token_has_the_vector_that_the_whole_layer_gives_it(
    kind: str, lengths: tuple[int, ...]
) -> None:
    whole = transformer(kind)
    model = PooledModel(whole, HIDDEN_SIZE, 0, cls_only_of(whole, 0))
    assert model.cls_only is not None
    batch = documents(*lengths)

    shorter = vectors_of(model, batch, all_cls=True)

    np.testing.assert_allclose(shorter, vectors_of(model, batch, all_cls=False), atol=1e-5)
    assert shorter.dtype == np.float32


def test_the_last_layer_is_computed_for_one_token_of_each_text() -> None:
    whole = transformer("bert")
    shorter = cls_only_of(whole, 0)
    assert shorter is not None
    widths = []
    for layer in whole.encoder.layer:
        layer.intermediate.register_forward_hook(
            lambda _layer, _inputs, wide: widths.append(tuple(wide.shape))
        )

    shorter(torch.ones((2, 7), dtype=torch.int64))

    assert widths == [(2, 7, 64), (2, 7, 64), (2, 1, 64)]


def test_no_weight_of_the_pytorch_model_is_held_twice() -> None:
    whole = transformer("roberta")
    weights = {id(weight) for weight in whole.parameters()}

    shorter = cls_only_of(whole, 0)

    assert shorter is not None
    assert {id(weight) for weight in shorter.parameters()} <= weights
    assert len(whole.encoder.layer) == 3


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("modernbert", {}),
        ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
        ("bert", {"is_decoder": True}),
        ("bert", {"num_hidden_layers": 0}),
    ],
    ids=["modernbert", "distilbert", "bert-decoder", "no-layer"],
)
def test_what_is_no_plain_bert_is_computed_whole(kind: str, more: dict[str, object]) -> None:
    assert cls_only_of(transformer(kind, **more), 0) is None


def test_a_shorter_way_that_leads_elsewhere_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = ClsOnly.last_of_first
    for name, broken in (
        ("last_of_first", lambda self, hidden, mask: first(self, hidden.flip(1), mask)),
        ("last_of_first", lambda self, hidden, mask: first(self, hidden, None)),
        ("last_of_all", lambda self, hidden, mask: hidden),
    ):
        caplog.clear()
        with monkeypatch.context() as patch:
            patch.setattr(ClsOnly, name, broken)
            assert cls_only_of(transformer("bert"), 0) is None
        assert "[CLS] alone comes out otherwise" in caplog.text


# In OpenVINO


def test_a_graph_of_cls_alone_that_gives_other_vectors_is_not_used(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    converted = convert_pooled_model(load_pooled_model(tiny_model))
    opened = OpenVinoBackend(converted, dtype="float32", num_threads=2)
    forward = opened._few.forward
    opened._few.forward = lambda batches: (  # type: ignore[method-assign]
        (position, vectors[::-1]) for position, vectors in forward(batches)
    )

    graph = opened._graph_of_many(all_cls=True)

    assert graph is opened._graph_of_many(all_cls=False)
    assert "[CLS] alone comes out otherwise" in caplog.text
    opened.close()


def test_a_large_model_has_no_second_graph_for_documents(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoder.backends.openvino_backend._COPIED_WEIGHTS", 10)
    converted = convert_pooled_model(load_pooled_model(tiny_model))
    opened = OpenVinoBackend(converted, dtype="float32", num_threads=2)

    graph = opened._graph_of_many(all_cls=True)

    assert graph is opened._graph_of_many(all_cls=False)
    opened.close()


def converted_layers(model: object) -> list[list[int]]:
    """Return the shapes in the middle of each layer's feed-forward part, for 2 rows of 7 tokens."""
    fixed = model.clone()  # type: ignore[attr-defined]
    ids, mask, is_cls = fixed.inputs
    fixed.reshape({ids: [2, 7], mask: [2, 7], is_cls: [2]})
    operations = fixed.get_ordered_ops()
    return [list(op.output(0).shape) for op in operations if op.get_type_name() == "Gelu"]


def test_a_converted_model_has_both_ways(tiny_model: Path) -> None:
    model = convert_pooled_model(load_pooled_model(tiny_model))

    *before, last = converted_layers(model.pooled)
    *cls_before, cls_last = converted_layers(model.cls_only)

    assert before == cls_before
    assert (last[:2], cls_last[:2]) == ([2, 7], [2, 1])


def test_a_graph_with_one_output_has_one_way(tiny_model: Path) -> None:
    both = convert_pooled_model(load_pooled_model(tiny_model))

    one = ConvertedModel(both.pooled, both.dimension, both.pad_token_id, both.n_weights)

    assert one.cls_only is None


@pytest.fixture(params=["torch", "openvino float32", "openvino bfloat16"])
def backend(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[object]:
    model = load_pooled_model(tiny_model)
    opened: TorchBackend | OpenVinoBackend
    if request.param == "torch":
        opened = TorchBackend(model, dtype="float32", device="cpu", max_seq_length=128)
    else:
        dtype = request.param.split()[1]
        if dtype == "bfloat16" and not detect_hardware().openvino_bfloat16:
            pytest.skip("OpenVINO has no bfloat16 on this CPU")
        opened = OpenVinoBackend(convert_pooled_model(model), dtype=dtype, num_threads=2)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "poolings",
    [
        [True] * 7 + [False] * 2 + [True] + [False] * 3,
        # The graph of [CLS] is first needed while batches of the other are under way.
        [False] * 3 + [True] * 4,
    ],
    ids=["documents first", "queries first"],
)
def test_batches_of_both_poolings_come_back_in_their_places(
    backend: TorchBackend | OpenVinoBackend, tiny_model: Path, poolings: list[bool]
) -> None:
    model = load_pooled_model(tiny_model)
    batches = [
        documents(9, 5, 12, is_cls=is_cls, seed=seed) for seed, is_cls in enumerate(poolings)
    ]

    found = list(backend.forward(iter(batches)))

    assert [position for position, _ in found] == list(range(len(batches)))
    for position, vectors in found:
        expected = vectors_of(model, batches[position], all_cls=False)
        least = 0.999 if backend.dtype == "bfloat16" else 0.99999
        assert lowest_cosine(vectors, expected) >= least


def test_many_documents_go_the_shorter_way_and_an_endpoint_does_not_prepare_it(
    tiny_model: Path,
) -> None:
    converted = convert_pooled_model(load_pooled_model(tiny_model))
    job, endpoint = (OpenVinoBackend(converted, dtype="float32", num_threads=2) for _ in range(2))
    many_documents = [documents(9, seed=seed) for seed in range(8)]

    list(job.forward(many_documents))
    endpoint.expect_short_texts()
    list(endpoint.forward(many_documents))

    assert (job._many, endpoint._many_cls) == (None, None)
    assert job._many_cls is not None
    job.expect_short_texts()
    assert job._graph_of_many(all_cls=True) is job._many_cls
    for opened in (job, endpoint):
        opened.close()
