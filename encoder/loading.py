"""From settings to a running encoder: find the model, read its space, open a backend.

Imports torch only when a model is loaded.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import numpy as np

from encoder.backends.base import Backend, TokenBatch
from encoder.backends.select import open_backend
from encoder.batching import plan_batches
from encoder.encoder import Encoder
from encoder.errors import ModelLoadError
from encoder.model.description import ModelDescription, describe_model
from encoder.model.int8_record import read_int8_record
from encoder.probe_vectors import SHORT_PROBE_TEXTS
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace, Pooling, Role
from encoder.tokenizer import Tokenizer

__all__ = ["load", "open_encoder"]

_PROBE_BATCH_TOKENS = 512
"""Padded tokens of a forward; a forward of both poolings has each text twice."""
_PROBE_PADDING_TOKENS = 384
"""Of a short text's row: more than the windows of local attention that are in use."""
_PACKAGES = ("twofold", "torch", "transformers", "tokenizers", "openvino")


def load(settings: EncoderSettings) -> Encoder:
    """Load the model that the settings name; see `encoder.load_encoder`."""
    model = describe_model(settings)
    encoder = open_encoder(model, settings)
    # The space was read before, and says which weights these are.
    model.files.check_unchanged()
    return encoder


def open_encoder(model: ModelDescription, settings: EncoderSettings) -> Encoder:
    """Open a model whose space is known.

    Args:
        model: Its files, and what the vectors are: `max_seq_length` and prompts are applied.
        settings: Backend, precision, device, budgets.

    Raises:
        ModelLoadError: The model cannot be loaded, or run as asked.
    """
    files, space = model.files, model.space
    tokenizer = Tokenizer(files.tokenizer, space.max_seq_length)
    if not tokenizer.begins_texts and any(space.role(role).pooling is Pooling.CLS for role in Role):
        raise ModelLoadError(
            f"{files.tokenizer}: expected a token before each text ([CLS]), whose vector is the "
            "text's with pooling cls, found none; give the file the post_processor that the model "
            "was trained with (AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) may "
            "write it), or pool by mean"
        )
    rows = files.config.get("vocab_size")
    if type(rows) is int and tokenizer.highest_id >= rows:
        raise ModelLoadError(
            f"{files.tokenizer}: expected token ids below {rows} (vocab_size of config.json: the "
            f"model's token embeddings), found {tokenizer.highest_id}; give the file the tokens "
            "that the model was trained with, or the model embeddings for all of them "
            "(resize_token_embeddings)"
        )
    backend = open_backend(
        files.folder,
        settings,
        max_seq_length=space.max_seq_length,
        probe=_probe(tokenizer, space),
        weights_sha256=space.weights_sha256,
    )
    return Encoder(space, tokenizer, backend, _provenance(model, settings, backend))


def _probe(tokenizer: Tokenizer, space: EmbeddingSpace) -> list[TokenBatch]:
    """Return the probe texts as batches, pooled as the space's roles are.

    Where there are both poolings, together and of [CLS] alone, which may be computed another way.
    The last ones hold a short text beside a long one: where attention is local (ModernBERT),
    padding that sees no token comes out as NaN in OpenVINO, and may spoil the text.
    """
    poolings = {space.role(role).pooling for role in Role}
    mixes = [[Pooling.CLS, Pooling.MEAN], [Pooling.CLS]] if len(poolings) > 1 else [[*poolings]]
    tokenized = tokenizer.tokenize(SHORT_PROBE_TEXTS)
    batches = plan_batches(
        tokenized.n_tokens,
        max_batch_tokens=_PROBE_BATCH_TOKENS,
        max_seq_length=tokenizer.max_seq_length,
    )
    of_texts = [[tokenized.input_ids[index] for index in batch.indices] for batch in batches]
    lengths = [batch.padded_length for batch in batches]
    padded_length = min(_PROBE_PADDING_TOKENS, tokenizer.max_seq_length)
    of_texts.append([tokenized.input_ids[0], np.resize(tokenized.input_ids[-1], padded_length)])
    return [
        TokenBatch.pad(
            rows * len(mix),
            np.repeat([pooling is Pooling.CLS for pooling in mix], len(rows)),
            padded_length=length,
            pad_token_id=0,
        )
        for rows, length in zip(of_texts, [*lengths, padded_length], strict=True)
        for mix in mixes
    ]


def _provenance(
    model: ModelDescription, settings: EncoderSettings, backend: Backend
) -> dict[str, str]:
    folder = model.files.folder
    found = {
        "model": settings.model,
        "revision": model.provenance.get("revision"),
        "backend": backend.name,
        "dtype": backend.dtype,
        "device": backend.device,
        # Two calibrations of one model are two graphs, and their vectors differ a little.
        "int8_graph": read_int8_record(folder).graph_sha256 if backend.dtype == "int8" else None,
        **{package: _version(package) for package in _PACKAGES},
    }
    return {name: value for name, value in found.items() if value is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
