"""Both roles equal the model card's `get_embedding`, on every backend and precision.

NoInstruct's architecture has random weights made on the spot; MiniLM's are real. Documents are
compared with mode "sentence" (CLS) and queries with mode "query" (mean), each in the cosine that
DESIGN.md asks for. The reference shares no code with tokenizing, batching or the backends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder.backends.choice import detect_hardware
from encoder.encoder import Encoder, load_encoder
from encoder.model_card import get_embedding, load_model_card
from encoder.settings import EncoderSettings
from encoder.space import Pooling, Role
from encoder.tokenizer import Tokenized
from support.models import minilm_folder

pytestmark = pytest.mark.integration

MIN_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
LENGTHS = [1, 2, 3, 5, 8, 13, 34, 89, 233, 509, 510, 511, 5000]
"""Tokens of the texts, special tokens not counted."""
ODD_TEXTS = [
    "",
    " \n\t ",
    "\x00control\x07characters\u200b",
    "Ünïcödé naïve façade; 東京 に 行く; שלום; 🙂🙃",
    "a" * 150 + " word beyond WordPiece's limit",
    "def f(x): return x**2 # 3.14 <tag> [SEP] [MASK]",
]
WORDS = [
    "time",
    "people",
    "water",
    "history",
    "science",
    "market",
    "light",
    "music",
    "law",
    "river",
    "north",
    "seven",
    "open",
]
MODELS = ["noinstruct", "minilm"]


def make_texts() -> list[str]:
    generator = np.random.default_rng(7)
    plain = [" ".join(generator.choice(WORDS, length)) for length in LENGTHS]
    return plain + ODD_TEXTS


TEXTS = make_texts()


@dataclass(frozen=True)
class Reference:
    """The model card's vectors of `TEXTS`, unit length, float32 (N, H)."""

    folder: Path
    query: np.ndarray
    sentence: np.ndarray


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Threads that wait for each other are ten times slower where other processes run too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=MODELS)
def reference(
    request: pytest.FixtureRequest, noinstruct_model: Path, one_torch_thread: None
) -> Reference:
    return reference_of(noinstruct_model if request.param == "noinstruct" else minilm_folder())


@cache
def reference_of(folder: Path) -> Reference:
    """Computed once: pytest comes back to a model for each of its backends."""
    card = load_model_card(folder, max_seq_length=512)
    by_mode = {}
    for mode in ("query", "sentence"):
        vectors = [get_embedding(card.model, card.tokenizer, text, mode) for text in TEXTS]
        by_mode[mode] = unit(np.concatenate(vectors))
    return Reference(folder, by_mode["query"], by_mode["sentence"])


@pytest.fixture(
    scope="module",
    params=[
        "torch-float32",
        "torch-bfloat16",
        "openvino-float32",
        "openvino-bfloat16",
    ],
)
def model(request: pytest.FixtureRequest, reference: Reference) -> Iterator[Encoder]:
    backend, dtype = request.param.split("-")
    if backend == "openvino" and dtype == "bfloat16" and not detect_hardware().openvino_bfloat16:
        pytest.skip("OpenVINO has no bfloat16 on this CPU")
    is_emulated = request.param == "torch-bfloat16" and not detect_hardware().cpu_bfloat16
    if is_emulated and reference.folder != minilm_folder():
        # Minutes for what nobody is given: `auto` is float32 there. MiniLM shows it.
        pytest.skip("PyTorch emulates bfloat16 on this CPU")
    opened = load_encoder(settings_of(reference, backend=backend, dtype=dtype, normalize=False))
    yield opened
    opened.close()


def settings_of(reference: Reference, **more: object) -> EncoderSettings:
    """MiniLM's own files say mean for both roles and 256 tokens: overridden, to test both."""
    asked = {
        "model": str(reference.folder),
        "query_pooling": Pooling.MEAN,
        "document_pooling": Pooling.CLS,
        "max_seq_length": 512,
        **more,
    }
    return EncoderSettings(**asked)  # type: ignore[arg-type]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_same(found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    cosines = (unit(found) * expected).sum(axis=1)
    low = {int(i): float(cosines[i]) for i in np.flatnonzero(~(cosines >= MIN_COSINE[dtype]))}
    assert not low, f"rows with their cosines: {low}"


def test_the_two_poolings_are_told_apart_by_these_texts(reference: Reference) -> None:
    """Else the tests below could not fail when roles are mixed up."""
    several_tokens = [i for i, text in enumerate(TEXTS) if len(text) > 20]

    cosines = (reference.query * reference.sentence).sum(axis=1)[several_tokens]

    assert cosines.max() < 0.999 - 0.001


def test_queries_equal_the_cards_query_mode(reference: Reference, model: Encoder) -> None:
    found = model.encode(TEXTS, Role.QUERY)

    assert_same(found.vectors, reference.query, model.provenance["dtype"])
    assert found.n_tokens[: len(LENGTHS)].tolist() == [min(n + 2, 512) for n in LENGTHS]
    assert found.truncated[: len(LENGTHS)].tolist() == [n > 510 for n in LENGTHS]


def test_documents_equal_the_cards_sentence_mode(reference: Reference, model: Encoder) -> None:
    found = model.encode_documents(TEXTS)

    assert_same(found, reference.sentence, model.provenance["dtype"])


@pytest.mark.parametrize("budget", [1, 1500])
def test_mixed_roles_in_any_order_and_any_batch_size(
    reference: Reference, model: Encoder, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model._backend, "max_batch_tokens", budget)
    if model.provenance["dtype"] == "bfloat16" and not detect_hardware().cpu_bfloat16:
        pytest.skip("PyTorch emulates bfloat16 on this CPU; each role by itself is compared")
    rows = [(i, role) for i in range(len(TEXTS)) for role in Role]
    order = np.random.default_rng(budget).permutation(len(rows))
    picked = [rows[i] for i in order]
    tokenized = Tokenized.join([model.tokenize([TEXTS[i]], role) for i, role in picked])

    found = model.encode_tokenized(tokenized, [role for _, role in picked])

    expected = np.stack(
        [(reference.query if r is Role.QUERY else reference.sentence)[i] for i, r in picked]
    )
    assert_same(found.vectors, expected, model.provenance["dtype"])


def test_without_normalization_the_vectors_equal_the_cards_in_length_too(
    reference: Reference, model: Encoder
) -> None:
    card = load_model_card(reference.folder, max_seq_length=512)
    texts = TEXTS[:8]
    tolerance = 1e-4 if model.provenance["dtype"] == "float32" else 5e-2

    for mode, found in (
        ("query", model.encode_queries(texts)),
        ("sentence", model.encode_documents(texts)),
    ):
        expected = get_embedding(card.model, card.tokenizer, texts, mode)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=tolerance * scale)


def test_prompts_lengths_and_dimensions_are_those_of_the_space(reference: Reference) -> None:
    settings = settings_of(
        reference,
        query_prompt="Represent this query: ",
        max_seq_length=40,
        truncate_dim=100,
        backend="torch",
        dtype="float32",
    )
    model = load_encoder(settings)
    card = load_model_card(reference.folder, model.space.max_seq_length)

    for role in Role:
        expected = card.embed(TEXTS, model.space, role)
        found = model.encode(TEXTS, role).vectors
        assert found.shape == (len(TEXTS), 100)
        assert_same(found, expected, "float32")
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_auto_keeps_the_fidelity_bar(reference: Reference) -> None:
    model = load_encoder(settings_of(reference))

    found = model.encode_documents(TEXTS)

    assert_same(found, reference.sentence, model.provenance["dtype"])
