"""The model with its pooling in it, in both runtimes, and which of them is chosen."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encoder.backends.base import TokenBatch
from encoder.backends.choice import Choice, Hardware, choose, detect_hardware
from encoder.backends.converted_model import convert_pooled_model
from encoder.backends.fidelity import LEAST_COSINE
from encoder.backends.openvino_backend import OpenVinoBackend
from encoder.backends.openvino_conversion import import_openvino
from encoder.backends.pooled_model import PooledModel, load_pooled_model
from encoder.backends.select import cosines_of, open_backend
from encoder.backends.torch_backend import TorchBackend
from encoder.errors import BackendError, ModelLoadError
from encoder.settings import EncoderSettings
from support.token_batches import token_batch, torch_backend
from support.transformers import tiny_transformer

CPU = Hardware(
    cuda=False, cuda_bfloat16=False, cpu_bfloat16=True, openvino_bfloat16=True, openvino=True
)
PLAIN_CPU = replace(CPU, openvino_bfloat16=False, openvino=False)
OLD_CPU = replace(CPU, cpu_bfloat16=False, openvino_bfloat16=False)
OLD_PLAIN_CPU = replace(OLD_CPU, openvino=False)
ARM = replace(CPU, openvino_bfloat16=False)
GPU = replace(CPU, cuda=True, cuda_bfloat16=True)
OLD_GPU = replace(OLD_CPU, cuda=True)


# Pooling


class FakeTransformer(torch.nn.Module):
    """Hidden states that are the token ids, so that pooling can be computed by hand."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> object:
        self.attention_mask = attention_mask
        hidden = input_ids.unsqueeze(-1).to(torch.bfloat16)

        class Output:
            last_hidden_state = hidden

        return Output()


def test_each_row_is_pooled_its_own_way_and_padding_does_not_count() -> None:
    model = PooledModel(FakeTransformer(), dimension=1, pad_token_id=0)
    ids = torch.tensor([[1, 2, 6, 99], [1, 2, 6, 99]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]])

    vectors = model(ids, mask, torch.tensor([True, False]))

    assert vectors.dtype == torch.float32
    assert vectors[:, 0].tolist() == [1.0, 3.0]


def test_attention_is_masked_only_where_something_is_padded(tiny_model: Path) -> None:
    backend = torch_backend(tiny_model)
    seen = []
    backend._model.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["attention_mask"] is not None),
        with_kwargs=True,
    )

    list(backend.forward([token_batch([8, 8]), token_batch([8, 5])]))

    assert seen == [False, True]


# Both backends against the plain model


@pytest.fixture(scope="module", params=["torch", "openvino"])
def backend(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[object]:
    if request.param == "torch":
        opened: TorchBackend | OpenVinoBackend = torch_backend(tiny_model)
    else:
        opened = OpenVinoBackend(
            convert_pooled_model(load_pooled_model(tiny_model)), dtype="float32", num_threads=2
        )
    yield opened
    opened.close()


def test_every_batch_comes_back_once_with_its_own_vectors(
    backend: TorchBackend, tiny_model: Path
) -> None:
    batches = [
        token_batch([length, length // 2 + 1], seed=length, padded_length=length + 3)
        for length in range(1, 60)
    ]
    model = load_pooled_model(tiny_model)

    found = dict(backend.forward(iter(batches)))

    assert sorted(found) == list(range(len(batches)))
    for position, batch in enumerate(batches):
        with torch.inference_mode():
            expected = model(
                torch.from_numpy(batch.input_ids),
                torch.from_numpy(batch.attention_mask),
                torch.from_numpy(batch.is_cls),
            ).numpy()
        assert found[position].dtype == np.float32
        np.testing.assert_allclose(found[position], expected, atol=2e-5)


def test_a_caller_that_stops_early_leaves_nothing_behind(backend: TorchBackend) -> None:
    batches = [token_batch([9], seed=seed) for seed in range(12)]
    running = backend.forward(batches)
    next(running)
    running.close()  # type: ignore[attr-defined]

    again = [position for position, _ in backend.forward(batches[:3])]

    assert sorted(again) == [0, 1, 2]


def test_an_error_of_the_caller_is_not_taken_for_the_backends(backend: TorchBackend) -> None:
    def batches() -> Iterator[TokenBatch]:
        yield token_batch([9])
        raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        list(backend.forward(batches()))
    assert len(list(backend.forward([token_batch([9])]))) == 1


def test_a_failing_forward_is_a_backend_error(backend: TorchBackend) -> None:
    good = token_batch([9, 9])
    bad = TokenBatch(good.input_ids, good.attention_mask[:, :4], good.is_cls)

    with pytest.raises(BackendError, match="expected a forward to finish, found"):
        list(backend.forward([good, bad, good]))
    assert len(list(backend.forward([good]))) == 1


# Choice


@pytest.mark.parametrize(
    ("asked", "hardware", "expected"),
    [
        ({}, CPU, Choice("openvino", "bfloat16", "cpu", True)),
        ({}, PLAIN_CPU, Choice("torch", "bfloat16", "cpu", True)),
        ({}, OLD_CPU, Choice("openvino", "float32", "cpu", True)),
        ({}, OLD_PLAIN_CPU, Choice("torch", "float32", "cpu", True)),
        ({}, ARM, Choice("openvino", "float32", "cpu", True)),
        ({"backend": "torch"}, ARM, Choice("torch", "bfloat16", "cpu", True)),
        ({}, GPU, Choice("torch", "bfloat16", "cuda", True)),
        ({}, OLD_GPU, Choice("torch", "float16", "cuda", True)),
        ({"backend": "openvino"}, GPU, Choice("openvino", "bfloat16", "cpu", True)),
        ({"device": "cpu"}, GPU, Choice("openvino", "bfloat16", "cpu", True)),
        ({"device": "cuda:1"}, GPU, Choice("torch", "bfloat16", "cuda:1", True)),
        ({"backend": "torch"}, CPU, Choice("torch", "bfloat16", "cpu", True)),
        ({"dtype": "float32"}, CPU, Choice("openvino", "float32", "cpu", False)),
        ({"dtype": "bfloat16"}, CPU, Choice("openvino", "bfloat16", "cpu", False)),
        ({"dtype": "bfloat16"}, OLD_CPU, Choice("torch", "bfloat16", "cpu", False)),
        ({"dtype": "bfloat16"}, ARM, Choice("torch", "bfloat16", "cpu", False)),
        ({"dtype": "float16"}, GPU, Choice("torch", "float16", "cuda", False)),
        ({"dtype": "int8"}, CPU, Choice("openvino", "int8", "cpu", False)),
        ({"dtype": "int8"}, GPU, Choice("openvino", "int8", "cpu", False)),
    ],
)
def test_auto_is_filled_in_and_what_is_asked_for_is_obeyed(
    asked: dict[str, str], hardware: Hardware, expected: Choice
) -> None:
    assert choose(EncoderSettings(**asked), hardware) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "hardware", "message"),
    [
        ({"dtype": "float16"}, CPU, "float16 needs a CUDA device"),
        ({"device": "cuda"}, CPU, "device cuda needs a CUDA device, a driver"),
        ({"backend": "openvino"}, PLAIN_CPU, r"pip install 'twofold\[cpu\]'"),
        (
            {"backend": "openvino", "dtype": "bfloat16"},
            OLD_CPU,
            "bfloat16 with backend openvino needs a CPU that computes bfloat16, found none; use",
        ),
        ({"backend": "openvino", "device": "cuda"}, GPU, "openvino runs on the CPU"),
        ({"dtype": "int8"}, PLAIN_CPU, r"dtype int8 needs the package openvino.*twofold\[cpu\]"),
        ({"dtype": "int8", "backend": "torch"}, CPU, "int8 needs backend openvino, found backend"),
        ({"dtype": "int8", "device": "cuda:1"}, GPU, "int8 runs on the CPU, found device cuda:1"),
    ],
)
def test_what_cannot_run_here_is_refused_with_what_to_do(
    asked: dict[str, str], hardware: Hardware, message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        choose(EncoderSettings(**asked), hardware)  # type: ignore[arg-type]


def test_this_machine_is_looked_at() -> None:
    found = detect_hardware()

    assert found.openvino
    assert found.cuda == torch.cuda.is_available()
    # With AVX-512 alone OpenVINO emulates it, and does not count that as what it can.
    assert openvino_computes_bfloat16() or not found.openvino_bfloat16


def openvino_computes_bfloat16() -> bool:
    """Whether a graph that is asked for bfloat16 says that it has it."""
    openvino = import_openvino("this test", "leave it out")
    opset = openvino.opset13
    numbers = opset.parameter([1, 8], np.float32)
    product = opset.matmul(numbers, opset.constant(np.eye(8, dtype=np.float32)), False, False)
    graph = openvino.Model([product], [numbers])
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    return bool(compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16)


# Fidelity


class DistortingBackend(TorchBackend):
    """bfloat16 that has lost its way; float32 is exact."""

    def _run(self, batch: TokenBatch) -> np.ndarray:
        vectors = super()._run(batch)
        if self.dtype == "bfloat16":
            vectors = vectors + np.roll(vectors, 1, axis=1)
        return vectors


def open_with_probe(folder: Path) -> object:
    settings = EncoderSettings(backend="torch")  # type: ignore[arg-type]
    return open_backend(
        folder, settings, max_seq_length=128, probe=[token_batch([9, 5])], hardware=CPU
    )


def test_a_precision_that_passes_the_probe_is_used_and_logged(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    backend = open_with_probe(tiny_model)

    assert backend.dtype == "bfloat16"  # type: ignore[attr-defined]
    (line,) = [r.getMessage() for r in caplog.records if r.name == "encoder.backends.select"]
    assert line.startswith("encoding with torch bfloat16 on cpu (min cosine to float32 0.99")


def test_a_precision_that_fails_the_probe_gives_way_to_float32(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("encoder.backends.torch_backend.TorchBackend", DistortingBackend)

    backend = open_with_probe(tiny_model)

    assert backend.dtype == "float32"  # type: ignore[attr-defined]
    assert "bfloat16 has min cosine" in caplog.text
    exact = torch_backend(tiny_model)
    batch = token_batch([9, 5])
    reference = [vectors for _, vectors in exact.forward([batch])]
    assert cosines_of(backend, [batch], reference).min() > 0.99999  # type: ignore[arg-type]


class DistortingOpenVino(OpenVinoBackend):
    """A graph that has come out wrong."""

    def forward(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, np.ndarray]]:
        for position, vectors in super().forward(batches):
            yield position, vectors + np.roll(vectors, 1, axis=1)


@pytest.mark.parametrize(("backend", "expected"), [("auto", "torch"), ("openvino", None)])
def test_a_runtime_that_computes_otherwise_in_float32_gives_way_to_torch(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, backend: str, expected: str | None
) -> None:
    monkeypatch.setattr("encoder.backends.openvino_backend.OpenVinoBackend", DistortingOpenVino)
    settings = EncoderSettings(backend=backend)  # type: ignore[arg-type]
    given = {"max_seq_length": 128, "probe": [token_batch([9, 5])], "hardware": OLD_CPU}

    if expected is None:
        with pytest.raises(
            ModelLoadError, match=r"openvino float32 has min cosine 0.* use backend"
        ):
            open_backend(tiny_model, settings, **given)  # type: ignore[arg-type]
        return
    opened = open_backend(tiny_model, settings, **given)  # type: ignore[arg-type]
    assert (opened.name, opened.dtype) == (expected, "float32")
    opened.close()


def test_float32_that_was_asked_for_gives_way_to_the_runtime_that_computes_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoder.backends.openvino_backend.OpenVinoBackend", DistortingOpenVino)
    given = {"max_seq_length": 128, "probe": [token_batch([9, 5])], "hardware": OLD_CPU}

    asked = EncoderSettings(dtype="float32")  # type: ignore[arg-type]
    opened = open_backend(tiny_model, asked, **given)  # type: ignore[arg-type]

    assert (opened.name, opened.dtype) == ("torch", "float32")
    opened.close()


def test_a_reduced_precision_that_was_asked_for_must_be_the_same_model_and_no_more(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    given = {"max_seq_length": 128, "probe": [token_batch([9, 5])], "hardware": CPU}
    asked = EncoderSettings(backend="torch", dtype="bfloat16")  # type: ignore[arg-type]
    # What `auto` would not pick.
    monkeypatch.setitem(LEAST_COSINE, "bfloat16", 1.1)
    open_backend(tiny_model, asked, **given).close()  # type: ignore[arg-type]
    assert "bfloat16 on cpu (as asked; min cosine to float32 0.99" in caplog.text

    monkeypatch.setattr("encoder.backends.torch_backend.TorchBackend", DistortingBackend)
    with pytest.raises(ModelLoadError, match=r"torch bfloat16 has min cosine 0.* use dtype float"):
        open_backend(tiny_model, asked, **given)  # type: ignore[arg-type]


def test_openvino_that_cannot_be_imported_is_no_trouble_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("encoder.backends.choice.find_spec", lambda name: object())

    found = detect_hardware()

    assert (found.openvino, found.openvino_bfloat16) == (True, False)
    torch_alone = choose(EncoderSettings(backend="torch"), found)  # type: ignore[arg-type]
    assert torch_alone.backend == "torch"


def test_vectors_that_are_not_numbers_fail_the_probe(tiny_model: Path) -> None:
    backend = torch_backend(tiny_model)
    batch = token_batch([4, 3])
    reference = [np.full((2, 32), np.nan, dtype=np.float32)]

    assert set(cosines_of(backend, [batch], reference)) == {-1.0}


# Loading


def test_a_checkpoint_that_lacks_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    weights = load_file(tiny_model / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())

    with pytest.raises(ModelLoadError, match=r"found 1 missing \(encoder\.layer\.1\.output"):
        load_pooled_model(tmp_path)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_checkpoint_with_more_layers_than_its_configuration_is_refused(
    tiny_model: Path, tmp_path: Path, prefix: str
) -> None:
    weights = load_file(tiny_model / "model.safetensors")
    # Heads, counted positions and causal masks are no loss.
    weights |= {"cls.predictions.bias": torch.zeros(9), "pooler.dense.bias": torch.zeros(32)}
    weights |= {"embeddings.position_ids": torch.arange(9)[None]}
    weights |= {"encoder.layer.0.attention.masked_bias": torch.zeros(1)}
    save_file(
        {f"{prefix}{name}": tensor for name, tensor in weights.items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    load_pooled_model(tmp_path)

    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(
        ModelLoadError, match=r"without \((bert\.)?encoder\.layer\.1\.[^)]*\): vectors"
    ):
        load_pooled_model(tmp_path)


def test_positions_that_transformers_does_not_compute_are_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    weights = load_file(tiny_model / "model.safetensors")
    for layer in range(2):
        name = f"encoder.layer.{layer}.attention.self.distance_embedding.weight"
        weights[name] = torch.zeros(2 * 128 - 1, 8)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tiny_model / "config.json").read_text())
    relative = {**config, "position_embedding_type": "relative_key"}
    (tmp_path / "config.json").write_text(json.dumps(relative))

    with pytest.raises(ModelLoadError, match=r"found 2 without .*position_embedding_type"):
        load_pooled_model(tmp_path)


@pytest.mark.parametrize("kind", ["convbert", "fnet", "nystromformer", "yoso"])
def test_an_architecture_whose_texts_see_padding_is_refused(kind: str, tmp_path: Path) -> None:
    """Else a text's vector would depend on those that it shares a batch with."""
    tiny_transformer(kind, head_ratio=1, embedding_size=32).save_pretrained(tmp_path)

    with pytest.raises(ModelLoadError, match=rf"padding beside it.*{kind}"):
        load_pooled_model(tmp_path)


def test_a_model_of_too_few_positions_is_one_clear_line(tmp_path: Path) -> None:
    tiny_transformer("bert", max_position_embeddings=16).save_pretrained(tmp_path)

    with pytest.raises(ModelLoadError, match=r"expected .* to compute 12 tokens and 8 of padding"):
        load_pooled_model(tmp_path)


def test_a_configuration_that_asks_for_tuples_gives_the_same_vectors(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes())
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "return_dict": False}))
    batch = token_batch([4, 3])

    [(_, found)] = torch_backend(tmp_path).forward([batch])

    [(_, expected)] = torch_backend(tiny_model).forward([batch])
    np.testing.assert_array_equal(found, expected)


def test_a_model_that_openvino_cannot_convert_is_one_clear_line(tmp_path: Path) -> None:
    tiny_transformer("bert", is_decoder=True).save_pretrained(tmp_path)

    level = logging.root.level
    with pytest.raises(ModelLoadError, match=r"OpenVINO can convert.*use backend torch") as caught:
        convert_pooled_model(load_pooled_model(tmp_path))

    assert "\n" not in str(caught.value)
    assert logging.root.level == level


def test_a_folder_that_is_no_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="expected a transformers model") as caught:
        load_pooled_model(tmp_path)

    assert "\n" not in str(caught.value)
