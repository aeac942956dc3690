"""Models whose attention is local: padding far from a text spoils neither it nor its mean."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from encoder.backends.local_attention import let_padding_see
from encoder.encoder import load_encoder
from encoder.errors import ModelLoadError
from encoder.model_card import load_model_card
from encoder.settings import EncoderSettings
from encoder.space import Role
from support.transformers import tiny_transformer

TEXTS = [" ".join(["word"] * count) for count in (1, 2, 5, 20, 60, 100)]


@pytest.fixture(scope="module")
def modernbert(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers that see 8 tokens to each side, and after them one that sees everything."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("local") / "model"))
    tiny_transformer(
        "modernbert",
        vocab_size=json.loads((folder / "config.json").read_text())["vocab_size"],
        num_hidden_layers=4,
        global_attn_every_n_layers=3,
        local_attention=16,
        **{"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    ).save_pretrained(folder)
    return folder


def settings(folder: Path, **more: str) -> EncoderSettings:
    poolings = {"query_pooling": "mean", "document_pooling": "cls"}
    return EncoderSettings(model=str(folder), dtype="float32", **poolings, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_texts_beside_much_longer_ones_have_the_vectors_of_the_model_card(
    modernbert: Path, backend: str
) -> None:
    encoder = load_encoder(settings(modernbert, backend=backend))
    card = load_model_card(modernbert, encoder.space.max_seq_length)
    for role in Role:
        encoded = encoder.encode(TEXTS, role)
        assert encoded.padded_tokens > 1.3 * encoded.n_tokens.sum()
        found = encoded.vectors
        alone = np.concatenate([card.embed([text], encoder.space, role) for text in TEXTS])
        assert (found * alone).sum(axis=1).min() > 0.99999
    encoder.close()


def test_a_runtime_whose_padding_spoils_texts_is_found_before_it_is_used(
    modernbert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoder.backends.pooled_model.let_padding_see", lambda transformer: None)
    with pytest.raises(ModelLoadError, match=r"openvino float32 has min cosine -1\.0"):
        load_encoder(settings(modernbert, backend="openvino"))
    assert load_encoder(settings(modernbert)).provenance["backend"] == "torch"


def test_models_that_attend_another_way_are_left_as_they_are() -> None:
    # Its masks are finite numbers; transformers would refuse SDPA for it.
    gemma = tiny_transformer("gemma2", head_dim=16, num_key_value_heads=2)
    assert "sliding_attention" in gemma.config.layer_types
    let_padding_see(gemma)
    assert gemma.config._attn_implementation == "eager"


def test_other_models_are_left_as_they_are(tiny_model: Path) -> None:
    from encoder.backends.pooled_model import load_pooled_model

    transformer = load_pooled_model(tiny_model).transformer
    assert transformer.config._attn_implementation == "sdpa"
