"""Vectors equal those of Sentence Transformers, architecture by architecture.

The poolings are both roles' own; Sentence Transformers has one for all, so there is one of its
models for each.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder.encoder import load_encoder
from encoder.settings import EncoderSettings
from encoder.space import Role
from support.transformers import HIDDEN_SIZE, tiny_transformer

pytestmark = pytest.mark.integration

LENGTH = 64
PROMPTS = {Role.QUERY: "query: ", Role.DOCUMENT: ""}
POOLINGS = {Role.QUERY: "mean", Role.DOCUMENT: "cls"}
TEXTS = [
    "",
    " ",
    "\x00control\x07",
    "a name, [SEP] a [PAD] and a caf\u00e9",
    *(" ".join(["word", "of", "text", "7"] * 40)[: 5 * count] for count in (1, 9, 33, 47)),
    *("." * count for count in (LENGTH - 3, LENGTH - 2, LENGTH - 1, LENGTH, 10 * LENGTH)),
]
# Of position embeddings some are kept for padding, whose id is 1.
AFTER_PADDING = {"pad_token_id": 1, "max_position_embeddings": LENGTH + 2}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}
ARCHITECTURES = {
    "albert": {"embedding_size": 16},
    "bert": {"hidden_act": "relu"},
    "deberta-v2": {**DISENTANGLED, "position_buckets": 16, "position_biased_input": False},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
    "electra": {"embedding_size": 16},
    "modernbert": {"local_attention": 16, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2},
    "mpnet": AFTER_PADDING,
    "nomic_bert": {},
    "roberta": AFTER_PADDING,
    "xlm-roberta": AFTER_PADDING,
}


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Threads that wait for each other are ten times slower where other processes run too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_each_role_has_the_vectors_of_sentence_transformers(
    tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = {"max_position_embeddings": LENGTH, **ARCHITECTURES[kind]}
    tiny_transformer(kind, vocab_size=vocab_size, **config).save_pretrained(folder)
    expected = {role: _vectors(folder, role) for role in Role}
    for backend in ("torch", "openvino"):
        settings = {"backend": backend, "dtype": "float32", "num_threads": 1}
        settings |= {"max_seq_length": LENGTH, "normalize": False}
        settings |= {f"{role.value}_pooling": POOLINGS[role] for role in Role}
        settings |= {f"{role.value}_prompt": PROMPTS[role] for role in Role}
        encoder = load_encoder(EncoderSettings(model=str(folder), **settings))
        for role in Role:
            together = encoder.encode(TEXTS, role).vectors
            np.testing.assert_allclose(together, expected[role], atol=2e-4, err_msg=backend)
            alone = [encoder.encode([text], role).vectors[0] for text in TEXTS[::3]]
            np.testing.assert_allclose(alone, expected[role][::3], atol=2e-4, err_msg=backend)
        encoder.close()


def _vectors(folder: Path, role: Role) -> np.ndarray:
    """Return what Sentence Transformers gives each text alone, float32 (N, H)."""
    st = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.models")
    transformer = modules.Transformer(str(folder), max_seq_length=LENGTH)
    pooling = modules.Pooling(HIDDEN_SIZE, POOLINGS[role])
    model = st.SentenceTransformer(modules=[transformer, pooling], device="cpu").to(torch.float32)
    prompted = [PROMPTS[role] + text for text in TEXTS]
    return np.stack([model.encode(text, show_progress_bar=False) for text in prompted])
