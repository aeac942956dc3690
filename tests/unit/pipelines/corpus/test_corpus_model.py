"""The model of a corpus: found from what is pinned, refused when it is another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoder.encoder import load_encoder
from encoder.errors import ModelLoadError, SpaceMismatchError
from encoder.model.description import describe_model
from encoder.settings import EncoderSettings
from encoder.space import Pooling
from pipelines import search
from pipelines.corpus.corpus_model import encoder_settings_of, find_corpus_model
from pipelines.corpus.pin import Pin
from support.models import save_random_bert
from support.vectors import VectorRow, make_pin, write_vectors

OVERRIDES = [
    {},
    {"normalize": False},
    {"max_seq_length": 17, "truncate_dim": 8},
    {"query_pooling": Pooling.CLS, "document_pooling": Pooling.MEAN, "query_prompt": "query: "},
]


def pin_of(model: Path, **overrides) -> Pin:
    space = describe_model(EncoderSettings(model=str(model), **overrides)).space
    return replace(make_pin(space), provenance={"model": str(model)})


@pytest.mark.parametrize("overrides", OVERRIDES, ids=str)
def test_what_is_pinned_need_not_be_given_again(tiny_model, overrides):
    pin = pin_of(tiny_model, **overrides)
    found = find_corpus_model(pin, EncoderSettings())
    assert found.folder == tiny_model
    assert describe_model(found.settings).space == pin.space


def test_what_is_given_all_the_same_must_agree(tiny_model):
    pin = pin_of(tiny_model, max_seq_length=17)
    with pytest.raises(SpaceMismatchError, match="max_seq_length: corpus 17, here 20"):
        find_corpus_model(pin, EncoderSettings(max_seq_length=20))


def test_another_model_is_refused_even_where_the_corpus_settings_do_not_fit_it(
    tiny_model, tmp_path
):
    size = {"layers": 1, "hidden": 16, "heads": 2, "intermediate": 32, "max_tokens": 64}
    small = save_random_bert(tmp_path / "small", **size, initializer_range=0.2)
    with pytest.raises(SpaceMismatchError, match="weights_sha256: corpus"):
        find_corpus_model(pin_of(tiny_model), EncoderSettings(model=str(small)))


def test_a_model_that_was_given_and_is_not_there_is_not_blamed_on_the_corpus(tiny_model):
    with pytest.raises(ModelLoadError) as refused:
        find_corpus_model(pin_of(tiny_model), EncoderSettings(model="/nowhere"))
    assert "give --model" not in str(refused.value)


def test_a_model_of_the_hub_is_taken_at_the_revision_that_the_corpus_was_made_with(tiny_model):
    pin = pin_of(tiny_model)
    provenance = {"model": "org/name@main", "revision": "0a1b2c"}
    settings = encoder_settings_of(replace(pin, provenance=provenance), EncoderSettings())
    assert settings.model == "org/name@0a1b2c"


def test_a_search_needs_nothing_but_the_corpus(tiny_model, tmp_path, capsys):
    pin = pin_of(tiny_model, truncate_dim=8)
    here = ("--backend", "torch", "--dtype", "float32")
    settings = EncoderSettings(
        model=str(tiny_model), truncate_dim=8, backend="torch", dtype="float32"
    )
    (vector,) = load_encoder(settings).encode_queries(["a lazy dog"])
    rows = [VectorRow("far", -vector), VectorRow("near", vector), VectorRow("zero", np.zeros(8))]
    write_vectors(tmp_path, pin, [rows])
    arguments = ("--corpus", str(tmp_path), "--query", "a lazy dog", "--k", "1")
    assert search.main([*arguments, *here]) == 0
    output = capsys.readouterr().out
    assert "near" in output
    assert "1.0000" in output
    assert "far" not in output
