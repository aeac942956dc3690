from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encoder
from encoder import loading
from encoder.backends.base import PackedBatch, TokenBatch
from encoder.batching import RowLimits
from encoder.encoder import EncodedVectors, Encoder, finish_vectors, load_encoder
from encoder.errors import (
    BackendError,
    InvalidInputError,
    ModelLoadError,
    NonFiniteVectorsError,
)
from encoder.probe_vectors import SHORT_PROBE_TEXTS
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace, Pooling, Role, RoleEncoding
from encoder.tokenizer import Tokenized, Tokenizer
from support.models import minilm_folder

DIMENSION = 8

SPACE = EmbeddingSpace(
    weights_sha256="0" * 64,
    tokenizer_sha256="0" * 64,
    query=RoleEncoding(Pooling.MEAN, "query: "),
    document=RoleEncoding(Pooling.CLS),
    normalize=False,
    max_seq_length=32,
    truncate_dim=None,
    dimension=DIMENSION,
)


class FakeBackend:
    """Vectors that say what the backend saw: [number of tokens, is_cls, last id, 1, 1, ...]."""

    name, dtype, device, dimension, pad_token_id = "fake", "float32", "cpu", DIMENSION, 0

    def __init__(self, max_batch_tokens: int = 64) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.streams = 1
        self.computes_padding = True
        self.overhead_tokens = 0
        self.packed: FakePackedTexts | None = None
        self.calls: list[int] = []
        self.active = 0
        self.closed = False

    def forward(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, np.ndarray]]:
        self.active += 1
        assert self.active == 1, "two forwards at once"
        done = []
        for position, batch in enumerate(batches):
            lengths = batch.attention_mask.sum(axis=1)
            vectors = np.ones((len(batch), DIMENSION), dtype=np.float32)
            vectors[:, 0] = lengths
            vectors[:, 1] = batch.is_cls
            vectors[:, 2] = batch.input_ids[np.arange(len(batch)), lengths - 2]
            self.calls.append(batch.padded_tokens)
            done.append((position, vectors))
        self.active -= 1
        yield from reversed(done)

    def expect_short_texts(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FakePackedTexts:
    """Rows of several texts; vectors as those of `FakeBackend`."""

    limits = RowLimits(
        row_tokens=24,
        max_texts=3,
        row_counts=(1, 4),
        overhead_tokens=16,
        padded_overhead_tokens=16,
    )

    def __init__(self) -> None:
        self.rows: list[int] = []

    def forward(self, batches: Iterable[PackedBatch]) -> Iterator[tuple[int, np.ndarray]]:
        done = []
        for position, batch in enumerate(batches):
            ids, text_ids = batch.input_ids.ravel(), batch.text_ids.ravel()
            vectors = np.ones((len(batch.starts), DIMENSION), dtype=np.float32)
            for text, start in enumerate(batch.starts):
                length = int((text_ids == text_ids[start]).sum())
                vectors[text, :3] = length, batch.is_cls[text], ids[start + length - 2]
            self.rows.append(len(batch.input_ids))
            done.append((position, vectors))
        yield from reversed(done)


def make_encoder(space: EmbeddingSpace = SPACE, backend: FakeBackend | None = None) -> Encoder:
    tokenizer = Tokenizer(minilm_folder() / "tokenizer.json", space.max_seq_length)
    return Encoder(space, tokenizer, backend or FakeBackend(), {"model": "fake"})


def texts(count: int) -> list[str]:
    generator = np.random.default_rng(count)
    return ["word " * int(generator.integers(1, 40)) + "abcdefghij"[i % 10] for i in range(count)]


def test_rows_come_back_in_input_order() -> None:
    model = make_encoder()

    found = model.encode(texts(50), Role.DOCUMENT)

    alone = [model.encode([text], Role.DOCUMENT).vectors[0] for text in texts(50)]
    assert np.array_equal(found.vectors, np.stack(alone))
    assert found.vectors[:, 0].tolist() == found.n_tokens.tolist()
    assert found.truncated.any()
    assert found.padded_tokens >= found.n_tokens.sum()


def test_short_texts_that_share_rows_come_back_in_input_order() -> None:
    texts = [f"{'word ' * (n % 30)}{n}" for n in range(40)]
    roles = [Role.QUERY if n % 3 else Role.DOCUMENT for n in range(40)]
    expected = encode_mixed(make_encoder(), texts, roles)
    backend = FakeBackend()
    backend.overhead_tokens, backend.packed = 16, FakePackedTexts()

    found = encode_mixed(make_encoder(backend=backend), texts, roles)

    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert set(backend.packed.rows) == {1, 4}
    assert found.padded_tokens == 24 * sum(backend.packed.rows) + sum(backend.calls)


def test_a_text_alone_never_shares_a_row() -> None:
    backend = FakeBackend()
    backend.packed = FakePackedTexts()

    found = make_encoder(backend=backend).encode(["word " * 20], Role.QUERY)

    assert found.n_tokens.tolist() == [24]  # a whole row, which would cost no more than padding
    assert backend.packed.rows == []


def encode_mixed(encoder: Encoder, texts: list[str], roles: list[Role]) -> EncodedVectors:
    return encoder.encode_tokenized(encoder.tokenize(texts, Role.QUERY), roles)


def test_the_batches_keep_to_the_backends_token_budget() -> None:
    backend = FakeBackend(max_batch_tokens=64)
    backend.streams = 3
    model = make_encoder(backend=backend)

    found = model.encode(texts(50), Role.DOCUMENT)

    assert max(backend.calls) <= 64
    assert sum(backend.calls) == found.padded_tokens
    assert (model.max_batch_tokens, model.max_concurrent_tokens) == (64, 192)


@pytest.mark.parametrize("computes_padding", [True, False])
def test_padding_counts_only_where_it_is_computed(computes_padding: bool) -> None:
    backend = FakeBackend()
    backend.computes_padding = computes_padding
    backend.overhead_tokens = 1_000  # so long and short texts share a forward

    found = make_encoder(backend=backend).encode(texts(5), Role.DOCUMENT)

    assert sum(backend.calls) > found.n_tokens.sum()
    assert found.padded_tokens == (sum(backend.calls) if computes_padding else found.n_tokens.sum())


def test_each_role_has_its_prompt_and_pooling() -> None:
    model = make_encoder()

    query = model.encode_queries(["word"])
    document = model.encode_documents(["word"])

    assert query[0, :2].tolist() == [5, 0]  # [CLS] query : word [SEP], mean
    assert document[0, :2].tolist() == [3, 1]  # [CLS] word [SEP], cls


def test_roles_can_be_mixed_row_by_row() -> None:
    model = make_encoder()
    roles = [Role.QUERY, Role.DOCUMENT] * 10
    tokenized = Tokenized.join(
        [model.tokenize([text], role) for text, role in zip(texts(20), roles, strict=True)]
    )

    found = model.encode_tokenized(tokenized, roles)

    assert found.vectors[:, 1].tolist() == [0, 1] * 10
    assert found.vectors[:, 0].tolist() == tokenized.n_tokens.tolist()


def test_as_many_roles_as_texts_are_expected() -> None:
    model = make_encoder()

    with pytest.raises(InvalidInputError, match="each of 2 texts, found 1 roles"):
        model.encode_tokenized(model.tokenize(["a", "b"], Role.QUERY), [Role.QUERY])


def test_no_texts_give_no_vectors() -> None:
    space = replace(SPACE, truncate_dim=3, dimension=3)

    assert make_encoder().encode_queries([]).shape == (0, DIMENSION)
    assert make_encoder(space).encode_documents([]).shape == (0, 3)


def test_vectors_are_cut_before_they_are_normalized() -> None:
    space = replace(SPACE, normalize=True, truncate_dim=3, dimension=3)

    vectors = make_encoder(space).encode_documents(["word", "two words"])

    assert vectors.shape == (2, 3)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    plain = make_encoder().encode_documents(["word", "two words"])[:, :3]
    np.testing.assert_allclose(vectors, plain / np.linalg.norm(plain, axis=1, keepdims=True), 1e-6)


def test_the_heartbeat_is_heard_after_every_batch_and_can_end_the_encoding() -> None:
    backend = FakeBackend(max_batch_tokens=32)
    model = make_encoder(backend=backend)
    beats = []

    tokenized = model.tokenize(texts(20), Role.DOCUMENT)
    model.encode_tokenized(tokenized, Role.DOCUMENT, heartbeat=lambda: beats.append(1))

    assert len(beats) == len(backend.calls) > 5

    def stop() -> None:
        raise TimeoutError("deadline")

    with pytest.raises(TimeoutError):
        model.encode_tokenized(tokenized, Role.DOCUMENT, heartbeat=stop)
    assert len(model.encode_documents(["goes on"])) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_unusable_vectors_are_named_by_their_rows(bad: float) -> None:
    pooled = np.ones((6, DIMENSION), dtype=np.float32)
    pooled[[1, 4]] = bad

    with pytest.raises(NonFiniteVectorsError, match="rows 1, 4;") as caught:
        finish_vectors(pooled, replace(SPACE, normalize=True))

    assert caught.value.indices == [1, 4]
    assert pickle.loads(pickle.dumps(caught.value)).indices == [1, 4]


def test_a_vector_of_zeros_is_usable_where_vectors_keep_their_lengths() -> None:
    pooled = np.zeros((2, DIMENSION), dtype=np.float32)

    assert not finish_vectors(pooled, replace(SPACE, normalize=False)).any()


def test_large_finite_vectors_are_usable() -> None:
    pooled = np.full((1, DIMENSION), 1e30, dtype=np.float32)

    vectors = finish_vectors(pooled, replace(SPACE, normalize=True))

    np.testing.assert_allclose(np.linalg.norm(vectors), 1.0, rtol=1e-6)


def test_a_batch_that_never_comes_back_is_an_error_not_old_memory() -> None:
    class Forgetful(FakeBackend):
        def forward(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, np.ndarray]]:
            yield from list(super().forward(batches))[1:]

    with pytest.raises(BackendError, match=r"texts from fake, found \d+ missing"):
        make_encoder(backend=Forgetful()).encode_documents(texts(50))


def test_two_threads_may_encode_at_once() -> None:
    model = make_encoder()
    expected = model.encode_documents(texts(40))
    results: list[np.ndarray] = []

    def work() -> None:
        for _ in range(5):
            results.append(model.encode_documents(texts(40)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 20
    assert all(np.array_equal(result, expected) for result in results)


def test_windows_leave_room_for_the_roles_prompt() -> None:
    model = make_encoder()
    text = "word " * 100

    assert len(model.windows(text, overlap=0, role=Role.QUERY)) == 4  # 28 words a window
    assert len(model.windows(text, overlap=0, role=Role.DOCUMENT)) == 4  # 30
    for start, end in model.windows(text, overlap=4, role=Role.QUERY):
        assert not model.tokenize([text[start:end]], Role.QUERY).truncated[0]


def test_closing_frees_the_backend() -> None:
    backend = FakeBackend()
    make_encoder(backend=backend).close()

    assert backend.closed


def test_a_loaded_model_says_what_it_is(tiny_model: Path) -> None:
    settings = EncoderSettings(model=str(tiny_model), backend="torch", dtype="float32")

    model = load_encoder(settings)

    assert model.space.query.pooling is Pooling.MEAN
    assert model.space.document.pooling is Pooling.CLS
    assert model.provenance["model"] == str(tiny_model)
    assert model.provenance["backend"] == "torch"
    assert model.provenance["dtype"] == "float32"
    assert set(model.provenance) >= {"device", "torch", "transformers", "tokenizers"}
    vectors = model.encode_documents(["a text", "another"])
    assert vectors.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("query", "document", "mixes"),
    [
        (Pooling.MEAN, Pooling.CLS, {(False, True), (True,)}),
        (Pooling.CLS, Pooling.MEAN, {(False, True), (True,)}),
        (Pooling.MEAN, Pooling.MEAN, {(False,)}),
        (Pooling.CLS, Pooling.CLS, {(True,)}),
    ],
)
def test_a_backend_proves_itself_on_every_way_in_which_the_space_pools(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    query: Pooling,
    document: Pooling,
    mixes: set[tuple[bool, ...]],
) -> None:
    probe: list[TokenBatch] = []

    def open_backend(*_: object, **given: Any) -> FakeBackend:
        probe.extend(given["probe"])
        return FakeBackend()

    monkeypatch.setattr(loading, "open_backend", open_backend)
    load_encoder(
        EncoderSettings(model=str(tiny_model), query_pooling=query, document_pooling=document)
    )

    seen: dict[bytes, set[tuple[bool, ...]]] = {}
    for batch in probe:
        for ids in np.unique(batch.input_ids, axis=0):
            is_this = (batch.input_ids == ids).all(axis=1)
            poolings = batch.is_cls[is_this].tolist()
            seen.setdefault(ids.tobytes(), set()).add(tuple(sorted(poolings)))
    assert len(seen) == len(SHORT_PROBE_TEXTS) + 2
    assert all(found == mixes for found in seen.values())
    lengths = probe[-1].attention_mask.sum(axis=1)
    assert lengths.max() == 128  # as long as the model reads, beside a short one
    assert lengths.min() < 8


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_model_whose_files_change_while_it_is_loaded_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its fingerprint is that of the files before."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    opened = loading.open_encoder

    def replaced(*given: object, **options: object) -> Encoder:
        fresh = folder / "fresh"
        shutil.copy(folder / name, fresh)
        fresh.replace(folder / name)
        return opened(*given, **options)

    settings = EncoderSettings(model=str(folder), backend="torch", dtype="float32")
    load_encoder(settings)
    monkeypatch.setattr(loading, "open_encoder", replaced)
    with pytest.raises(ModelLoadError, match="found others while they were loaded"):
        load_encoder(settings)


def test_pooling_by_cls_needs_a_tokenizer_that_begins_texts_with_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    settings = EncoderSettings(model=str(folder), backend="torch", dtype="float32")
    with pytest.raises(ModelLoadError, match=r"expected a token before each text \(\[CLS\]\)"):
        load_encoder(settings)
    load_encoder(settings.model_copy(update={"document_pooling": Pooling.MEAN}))


def test_a_token_that_the_model_has_no_embedding_for_is_found_when_it_is_loaded(
    tiny_model: Path, tmp_path: Path
) -> None:
    """OpenVINO would take zeros for it."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] += [{**content["added_tokens"][0], "id": 30_522, "content": "<new>"}]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = EncoderSettings(model=str(folder), backend="torch", dtype="float32")
    with pytest.raises(ModelLoadError, match=r"token ids below 30522 .*found 30522"):
        load_encoder(settings)


def test_importing_the_package_does_not_import_torch() -> None:
    heavy = "[name for name in ('torch', 'transformers', 'openvino') if name in sys.modules]"
    program = (
        "import sys, encoder; encoder.Encoder, encoder.load_encoder, encoder.EncoderSettings; "
        f"sys.exit(str({heavy}) if {heavy} else 0)"
    )
    root = Path(encoder.__file__).parent.parent

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_the_public_names_are_these() -> None:
    assert encoder.__all__ == [
        "BackendError",
        "BackendName",
        "DtypeName",
        "EmbeddingSpace",
        "Encoded",
        "EncodedVectors",
        "Encoder",
        "EncoderSettings",
        "InvalidInputError",
        "ModelLoadError",
        "NonFiniteVectorsError",
        "Pooling",
        "Role",
        "RoleEncoding",
        "SpaceMismatchError",
        "Tokenized",
        "TwofoldError",
        "load_encoder",
    ]
    assert all(getattr(encoder, name) is not None for name in encoder.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = encoder.nothing
