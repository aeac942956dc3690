"""The models made on the spot can show the mistakes that tests look for."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from support.models import NOINSTRUCT, save_random_bert

pytestmark = pytest.mark.integration

TEXTS = ["open a file and read its lines", "parse a date", "sort a list of numbers in place"]


@pytest.mark.parametrize("fixture", ["tiny_model", "noinstruct_model"])
def test_texts_and_poolings_have_vectors_apart(fixture: str, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(fixture)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in TEXTS:
        with torch.no_grad():
            tokens = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vectors += [tokens[0], tokens.mean(0)]
    unit = torch.nn.functional.normalize(torch.stack(vectors), dim=-1)
    assert max(float(a @ b) for a, b in combinations(unit, 2)) < 0.98


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path):
    shape = {
        "layers": 1,
        "hidden": 8,
        "heads": 1,
        "intermediate": 8,
        "max_tokens": 16,
        "initializer_range": 0.2,
    }
    digests = [
        hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        for folder in (
            save_random_bert(tmp_path / "a", **shape),
            save_random_bert(tmp_path / "b", **shape),
            save_random_bert(tmp_path / "c", **shape, seed=1),
        )
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_folder_names_the_model_and_its_length(tiny_model: Path):
    config = json.loads((tiny_model / "config.json").read_text())
    assert config["_name_or_path"] == NOINSTRUCT
    assert config["max_position_embeddings"] == 128
    assert AutoTokenizer.from_pretrained(tiny_model).model_max_length == 128
