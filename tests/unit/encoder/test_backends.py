from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoder.backends.base import PackedBatch, TokenBatch
from encoder.backends.choice import Choice, Hardware, choose, detect_hardware
from encoder.backends.converted_model import convert_packed_model, convert_pooled_model
from encoder.backends.fidelity import lowest_cosine
from encoder.backends.memory import forward_within_memory, probe_token_budget
from encoder.backends.openvino_backend import OpenVinoBackend, _Compiler
from encoder.backends.openvino_graph import CompiledGraph
from encoder.backends.openvino_packed import PackedGraphs, proven
from encoder.backends.packed_model import PackedModel, can_pack
from encoder.backends.pooled_model import PooledModel, load_pooled_model
from encoder.backends.select import lowest_cosine_of, open_backend
from encoder.backends.torch_backend import TorchBackend
from encoder.errors import BackendError, ModelLoadError
from encoder.settings import EncoderSettings
from support.models import minilm_folder

CPU = Hardware(cuda=False, cuda_bfloat16=False, cpu_bfloat16=True, openvino=True)
OLD_CPU = Hardware(cuda=False, cuda_bfloat16=False, cpu_bfloat16=False, openvino=False)
GPU = Hardware(cuda=True, cuda_bfloat16=True, cpu_bfloat16=True, openvino=True)
OLD_GPU = Hardware(cuda=True, cuda_bfloat16=False, cpu_bfloat16=False, openvino=True)


def token_batch(lengths: list[int], *, seed: int = 0, padded_length: int = 0) -> TokenBatch:
    generator = np.random.default_rng(seed)
    rows = [generator.integers(1000, 20_000, length).astype(np.int32) for length in lengths]
    is_cls = np.arange(len(rows)) % 2 == 0
    return TokenBatch.pad(rows, is_cls, padded_length=padded_length or max(lengths), pad_token_id=0)


def torch_backend(folder: Path, **options: object) -> TorchBackend:
    chosen = {"dtype": "float32", "device": "cpu", "max_seq_length": 128, **options}
    return TorchBackend(load_pooled_model(folder), **chosen)  # type: ignore[arg-type]


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
        counts.append(backend.packed.row_counts)
        backend.close()

    assert counts == [[1, 2, 3, 4, 8], [1, 4]]


@pytest.mark.skipif(not detect_hardware().cpu_bfloat16, reason="this CPU has no bfloat16")
def test_with_many_threads_parts_are_computed_at_once(tiny_model: Path) -> None:
    backend = ready_for_short_texts(tiny_model, dtype="bfloat16", num_threads=8)
    calls = [packed_batch([[20, 30]], seed=seed) for seed in range(9)]

    found = dict(backend.packed.forward([packed for packed, _ in calls]))

    assert backend.packed.streams == 2
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


# Memory


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


# Choice


@pytest.mark.parametrize(
    ("asked", "hardware", "expected"),
    [
        ({}, CPU, Choice("openvino", "bfloat16", "cpu", True)),
        ({}, OLD_CPU, Choice("torch", "float32", "cpu", True)),
        ({}, GPU, Choice("torch", "bfloat16", "cuda", True)),
        ({}, OLD_GPU, Choice("torch", "float16", "cuda", True)),
        ({"backend": "openvino"}, GPU, Choice("openvino", "bfloat16", "cpu", True)),
        ({"device": "cpu"}, GPU, Choice("openvino", "bfloat16", "cpu", True)),
        ({"device": "cuda:1"}, GPU, Choice("torch", "bfloat16", "cuda:1", True)),
        ({"backend": "torch"}, CPU, Choice("torch", "bfloat16", "cpu", True)),
        ({"dtype": "float32"}, CPU, Choice("openvino", "float32", "cpu", False)),
        ({"dtype": "bfloat16"}, OLD_CPU, Choice("torch", "bfloat16", "cpu", False)),
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
        ({"device": "cuda"}, CPU, "device cuda needs a CUDA device"),
        ({"device": "cuda:x"}, GPU, "expected device auto, cpu, cuda or cuda:N"),
        ({"device": "tpu"}, GPU, "expected device auto, cpu, cuda or cuda:N"),
        ({"backend": "openvino"}, OLD_CPU, r"pip install twofold\[cpu\]"),
        ({"backend": "openvino", "device": "cuda"}, GPU, "openvino runs on the CPU"),
        ({"dtype": "int8"}, OLD_CPU, r"dtype int8 needs the package openvino.*twofold\[cpu\]"),
        ({"dtype": "int8", "backend": "torch"}, CPU, "int8 needs backend openvino, found backend"),
        ({"dtype": "int8", "device": "cuda:1"}, GPU, "int8 runs on the CPU, found device cuda:1"),
        ({"dtype": "int8", "device": "tpu"}, CPU, "expected device auto, cpu, cuda or cuda:N"),
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


def test_openvino_that_is_not_installed_says_how_to_install_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(ModelLoadError, match=r"pip install twofold\[cpu\]"):
        OpenVinoBackend(convert_pooled_model(load_pooled_model(tiny_model)), dtype="float32")


def test_openvino_telemetry_is_never_loaded(tiny_model: Path) -> None:
    OpenVinoBackend(convert_pooled_model(load_pooled_model(tiny_model)), dtype="float32").close()

    assert "openvino_telemetry" not in sys.modules


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
    assert lowest_cosine_of(backend, [batch], reference) > 0.99999  # type: ignore[arg-type]


def test_vectors_that_are_not_numbers_fail_the_probe(tiny_model: Path) -> None:
    backend = torch_backend(tiny_model)
    batch = token_batch([4, 3])
    reference = [np.full((2, 32), np.nan, dtype=np.float32)]

    assert lowest_cosine_of(backend, [batch], reference) == -1.0


# Loading


def test_a_checkpoint_that_lacks_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_model / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())

    with pytest.raises(ModelLoadError, match=r"found 1 missing \(encoder\.layer\.1\.output"):
        load_pooled_model(tmp_path)


def test_a_folder_that_is_no_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="expected a transformers model") as caught:
        load_pooled_model(tmp_path)

    assert "\n" not in str(caught.value)
