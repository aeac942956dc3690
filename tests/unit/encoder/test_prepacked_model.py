from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from encoder.backends import prepacked_model
from encoder.backends.base import TokenBatch
from encoder.backends.choice import Hardware
from encoder.backends.cls_only import cls_only_of
from encoder.backends.fidelity import lowest_cosine
from encoder.backends.pooled_model import PooledModel, load_pooled_model
from encoder.backends.prepacked_model import prepack
from encoder.backends.select import open_backend
from encoder.backends.torch_backend import TorchBackend
from encoder.settings import EncoderSettings
from support.transformers import HIDDEN_SIZE, tiny_transformer, vectors_of, with_biases

LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> str:
    """A precision in which this PyTorch and this CPU can prepack."""
    operators = torch.ops.mkldnn
    matrix = torch.zeros(16, 16, dtype=getattr(torch, request.param))
    try:
        packed = operators._reorder_linear_weight(matrix)
        operators._linear_pointwise(matrix, packed, None, "none", [], "none")
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"no prepacking here in {request.param}: {error}")
    return request.param


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Threads that wait for each other are ten times slower where other processes run too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bert(folder: Path, dtype: str) -> PooledModel:
    return with_biases(load_pooled_model(folder)).to(getattr(torch, dtype))


def other_model(dtype: str, kind: str, **more: object) -> PooledModel:
    transformer = tiny_transformer(kind, **more)
    model = PooledModel(transformer, HIDDEN_SIZE, 0, cls_only_of(transformer, 0))
    return model.to(getattr(torch, dtype))


def token_batch(lengths: list[int], *, pooling: str = "cls first") -> TokenBatch:
    generator = np.random.default_rng(len(lengths))
    rows = [generator.integers(5, 1000, length).astype(np.int32) for length in lengths]
    is_cls = (np.arange(len(rows)) % 2 == 0) == (pooling == "cls first")
    is_cls |= pooling == "cls"
    return TokenBatch.pad(rows, is_cls, padded_length=max(lengths), pad_token_id=0)


def linears(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, nn.Linear)]


# The same vectors


@pytest.mark.parametrize("pooling", ["cls first", "mean first", "cls"])
@pytest.mark.parametrize(
    "lengths",
    [[1], [2], [3], [12], [17], [128], [12] * 4, [9, 5, 1], [1, 128], [128] * 20, [100, 7] * 15],
    ids=lambda lengths: f"{len(lengths)}x{max(lengths)}",
)
def test_texts_have_the_vectors_that_they_have_from_the_plain_model(
    tiny_model: Path, dtype: str, lengths: list[int], pooling: str
) -> None:
    batch = token_batch(lengths, pooling=pooling)
    expected = vectors_of(bert(tiny_model, dtype), batch, all_cls=batch.all_cls)
    model = bert(tiny_model, dtype)

    prepack(model)

    assert linears(model) == []
    found = vectors_of(model, batch, all_cls=batch.all_cls)
    assert found.dtype == np.float32
    assert lowest_cosine(found, expected) >= LEAST_COSINE[dtype]
    scale = np.abs(expected).max()
    tolerance = 1e-5 if dtype == "float32" else 5e-2
    np.testing.assert_allclose(found, expected, atol=tolerance * scale)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("roberta", {}),
        ("modernbert", {}),  # without biases
        ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
        ("bert", {"hidden_act": "relu"}),
        ("bert", {"is_decoder": True}),
    ],
    ids=["roberta", "modernbert", "distilbert", "bert-relu", "bert-decoder"],
)
def test_other_architectures_keep_their_own_code_on_prepacked_weights(
    dtype: str, kind: str, more: dict[str, object]
) -> None:
    plain, model = other_model(dtype, kind, **more), other_model(dtype, kind, **more)

    prepack(model)

    assert type(model.transformer) is type(plain.transformer)
    assert linears(model) == []
    for lengths, pooling in product(([1], [12], [9, 5, 1], [64] * 40), ("cls first", "cls")):
        batch = token_batch(lengths, pooling=pooling)
        cosine = lowest_cosine(
            vectors_of(model, batch, all_cls=batch.all_cls),
            vectors_of(plain, batch, all_cls=batch.all_cls),
        )
        assert cosine >= LEAST_COSINE[dtype]


def test_a_layer_that_does_more_than_multiply_is_left_alone(dtype: str) -> None:
    class Doubling(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(inputs)

    model = other_model(dtype, "roberta")
    wide = model.transformer.encoder.layer[0].intermediate
    wide.dense.__class__ = Doubling
    batch = token_batch([9, 5, 1])
    expected = vectors_of(model, batch, all_cls=batch.all_cls)

    prepack(model)

    assert [type(layer) for layer in linears(model)] == [Doubling]
    assert (
        lowest_cosine(vectors_of(model, batch, all_cls=batch.all_cls), expected)
        >= LEAST_COSINE[dtype]
    )


def test_a_layer_that_stands_in_two_places_is_prepacked_once(dtype: str) -> None:
    model = other_model(dtype, "roberta")
    first, second = model.transformer.encoder.layer
    second.intermediate.dense = first.intermediate.dense

    prepack(model)

    assert linears(model) == []
    first, second = model.transformer.encoder.layer
    assert second.intermediate.dense is first.intermediate.dense


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_no_weight_is_held_twice(dtype: str, kind: str) -> None:
    model = other_model(dtype, kind)
    plain = [weakref.ref(layer.weight) for layer in linears(model)]
    embedding = model.transformer.embeddings.word_embeddings.weight

    prepack(model)

    assert len(plain) >= 12
    assert [weight for weight in plain if weight() is not None] == []
    shared = [tensor for tensor in model.parameters() if tensor is embedding]
    assert len(shared) == 1


# Where it is not possible


def refuse(*_: object) -> torch.Tensor:
    raise RuntimeError("reorder_linear_weight: bf16 path needs\nthe cpu support")


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize(
    ("operators", "reason"),
    [
        (SimpleNamespace(), "AttributeError: .*_reorder_linear_weight"),
        (SimpleNamespace(_reorder_linear_weight=refuse), "RuntimeError: .* needs the cpu support"),
    ],
    ids=["absent", "failing"],
)
def test_a_model_stays_as_it_is_where_operators_are_missing(
    operators: object,
    reason: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    model = other_model("bfloat16", kind)
    plain = model.transformer
    monkeypatch.setattr(torch.ops, "mkldnn", operators)

    prepack(model)

    assert model.transformer is plain
    assert len(linears(model)) >= 12
    (record,) = caplog.records
    assert record.getMessage().startswith("weights cannot be prepacked: ")
    assert re.search(reason, record.getMessage())


def without_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        prepacked_model._Linear, "plus", lambda self, inputs, others: self.forward(inputs)
    )


def without_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    call = prepacked_model._Layer.__call__
    monkeypatch.setattr(
        prepacked_model._Layer,
        "__call__",
        lambda self, hidden, mask, first=None: call(self, hidden, None, first),
    )


def without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        prepacked_model._Linear, "plus", lambda self, inputs, others: others * float("nan")
    )


@pytest.mark.parametrize("break_it", [without_residuals, without_mask, without_numbers])
def test_weights_that_give_other_vectors_are_not_used(
    break_it: Callable[[pytest.MonkeyPatch], None],
    tiny_model: Path,
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = bert(tiny_model, dtype)
    plain = model.transformer
    break_it(monkeypatch)

    prepack(model)

    assert model.transformer is plain
    assert "prepacked weights give other vectors" in caplog.text


def test_a_precision_without_a_bar_is_left_alone(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model = bert(tiny_model, "float16")
    plain = model.transformer

    prepack(model)

    assert model.transformer is plain
    assert caplog.records == []


# In the backend


def test_the_backend_prepacks_on_a_cpu(tiny_model: Path, dtype: str) -> None:
    backend = TorchBackend(
        load_pooled_model(tiny_model), dtype=dtype, device="cpu", max_seq_length=128
    )

    assert linears(backend._model) == []


def test_the_backend_prepacks_nowhere_else(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepacked: list[PooledModel] = []
    monkeypatch.setattr("encoder.backends.torch_backend.prepack", prepacked.append)

    for device in ("meta", "cpu"):
        TorchBackend(
            load_pooled_model(tiny_model), dtype="bfloat16", device=device, max_seq_length=128
        )

    assert [model.transformer.device.type for model in prepacked] == ["cpu"]


def test_the_probe_of_a_precision_judges_prepacked_weights(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def spoil_bfloat16(model: PooledModel) -> None:
        if model.transformer.dtype == torch.bfloat16:
            model.transformer.embeddings.position_embeddings.weight.zero_()

    monkeypatch.setattr("encoder.backends.torch_backend.prepack", torch.no_grad()(spoil_bfloat16))

    backend = open_backend(
        tiny_model,
        EncoderSettings(backend="torch"),  # type: ignore[arg-type]
        max_seq_length=128,
        probe=[token_batch([9, 5])],
        hardware=Hardware(
            cuda=False,
            cuda_bfloat16=False,
            cpu_bfloat16=True,
            openvino_bfloat16=True,
            openvino=True,
        ),
    )

    assert backend.dtype == "float32"
    assert "bfloat16 has min cosine" in caplog.text
