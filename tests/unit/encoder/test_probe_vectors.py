"""Two encoders of one space are told apart by what they compute, and only where they do."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from encoder.backends.choice import detect_hardware
from encoder.encoder import load_encoder
from encoder.errors import BackendError, NewerFormatError, NonFiniteVectorsError, SpaceMismatchError
from encoder.probe_vectors import (
    PROBE_TEXTS,
    SHORT_PROBE_TEXTS,
    ProbeVectors,
    least_cosine_between,
)
from encoder.settings import EncoderSettings
from encoder.space import Role
from encoder.tokenizer import Tokenizer
from support.fake_encoder import SPACE, FakeEncoder
from support.transformers import tiny_transformer

WHERE = "s3://lake/vectors/_probe_vectors.json"
REMOVED = "(removed)"
BARS = [
    ("float32", "float32", 0.9999),
    ("float32", "bfloat16", 0.998),
    ("float16", "bfloat16", 0.995),
    ("bfloat16", "int8", 0.93),
]


def of_fake(**provenance: str) -> ProbeVectors:
    encoder = FakeEncoder()
    encoder.provenance = {**encoder.provenance, **provenance}
    return ProbeVectors.of(encoder)


def turned(encoder: FakeEncoder, cosine: float, role: Role) -> FakeEncoder:
    """Return an encoder whose vectors of a role have this cosine with those of `encoder`."""

    class Turned(FakeEncoder):
        def encode(self, texts, asked):
            found = encoder.encode(texts, asked)
            if asked is not role:
                return found
            vectors = found.vectors
            other = np.roll(vectors, 1, axis=1)
            other -= (other * vectors).sum(axis=1, keepdims=True) * vectors
            other /= np.linalg.norm(other, axis=1, keepdims=True)
            return replace(found, vectors=cosine * vectors + math.sqrt(1 - cosine**2) * other)

    return Turned()


def test_an_encoder_computes_what_it_computed_before_it_was_written_down():
    text = ProbeVectors.of(FakeEncoder()).to_json()
    known = ProbeVectors.from_json(text, SPACE, "file")
    assert known.texts == PROBE_TEXTS
    for role in Role:
        expected = FakeEncoder().encode(PROBE_TEXTS, role).vectors
        np.testing.assert_allclose(known.vectors[role], expected, rtol=1e-6)
    known.check(FakeEncoder(), WHERE)


def test_the_file_is_plain_json_of_texts_and_their_vectors_by_role():
    data = json.loads(of_fake().to_json())
    assert data["fingerprint"] == SPACE.fingerprint
    assert data["provenance"]["dtype"] == "float32"
    for role in ("query", "document"):
        assert len(data[role]) == len(data["texts"])
        assert {len(vector) for vector in data[role]} == {SPACE.dimension}


@pytest.mark.parametrize("role", list(Role), ids=str)
@pytest.mark.parametrize(("there", "here", "bar"), BARS)
def test_what_precision_explains_is_no_other_vector_and_what_it_does_not_is(role, there, here, bar):
    known = of_fake(dtype=there)
    for cosine, is_same in ((bar + 0.8 * (1 - bar), True), (bar - 0.05, False)):
        encoder = turned(FakeEncoder(), cosine, role)
        encoder.provenance = {**encoder.provenance, "dtype": here}
        if is_same:
            known.check(encoder, WHERE)
            continue
        with pytest.raises(SpaceMismatchError) as refused:
            known.check(encoder, WHERE)
        assert f"as {role.value} has cosine {cosine:.5f}" in str(refused.value)


@pytest.mark.parametrize(("there", "here", "bar"), BARS)
def test_bars_are_those_of_both_precisions_together_whichever_comes_first(there, here, bar):
    least = least_cosine_between(there, here)
    assert least == least_cosine_between(here, there)
    assert bar < least < bar + (1 - bar)


def test_the_error_names_the_corpus_the_text_and_what_differs_there_and_here():
    known = of_fake(torch="2.13.0", device="cuda")
    with pytest.raises(SpaceMismatchError) as refused:
        known.check(turned(FakeEncoder(), 0.5, Role.QUERY), WHERE)
    said = str(refused.value)
    assert f"other vectors than {known.host} did that wrote {WHERE}" in said
    assert "device there cuda, here cpu" in said
    assert "torch there 2.13.0, here None" in said
    assert "backend there" not in said, "it is the same"


@pytest.mark.parametrize("number", range(len(PROBE_TEXTS)))
def test_one_text_that_differs_is_enough_and_is_named(number):
    known = of_fake()
    vectors = known.vectors[Role.QUERY].copy()
    vectors[number] = (
        turned(FakeEncoder(), 0.99, Role.QUERY).encode(PROBE_TEXTS, Role.QUERY).vectors[number]
    )
    said = known.unlike(Role.QUERY, vectors, "float32")
    assert (
        said
        == f"{PROBE_TEXTS[number][:40]!r} as query has cosine 0.99000, expected 0.99996 or more"
    )


def test_vectors_that_are_not_finite_are_others():
    vectors = np.full((len(PROBE_TEXTS), SPACE.dimension), np.nan, np.float32)
    assert of_fake().unlike(Role.QUERY, vectors, "float32") is not None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0},
        {"format": REMOVED},
        {"unknown": 1},
        {"fingerprint": "0" * 16},
        {"texts": []},
        {"texts": ["one"]},
        {"query": [[1.0]]},
        {"query": "nonsense"},
        {"document": [[1.0, None]]},
        {"document": [[0.0] * 4] * len(PROBE_TEXTS)},
        {"document": [[10**400] * 4] * len(PROBE_TEXTS)},
        {"document": [[1e300] * 4] * len(PROBE_TEXTS)},
        {"query": [[math.nan] * 4] * len(PROBE_TEXTS)},
        {"host": REMOVED},
        {"provenance": {}},
        {"provenance": {"dtype": "float8"}},
    ],
    ids=lambda change: f"{str(change)[:40]}",
)
def test_a_damaged_file_is_refused_with_its_name(change):
    data = {**json.loads(of_fake().to_json()), **change}
    data = {name: value for name, value in data.items() if value != REMOVED}
    with pytest.raises(SpaceMismatchError, match=r"^the-file does not hold the probe vectors"):
        ProbeVectors.from_json(json.dumps(data), SPACE, "the-file")


def test_a_file_of_a_newer_twofold_is_no_damaged_one_and_must_not_be_deleted():
    """Those of a later encoder in its place would be the reference of the whole corpus."""
    data = {**json.loads(of_fake().to_json()), "format": 2}
    with pytest.raises(NewerFormatError) as refused:
        ProbeVectors.from_json(json.dumps(data), SPACE, "the-file")
    assert "the-file was written by a newer version of twofold" in str(refused.value)
    assert "delete" not in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_not_its_json_is_refused_with_its_name(text):
    with pytest.raises(SpaceMismatchError, match=r"^the-file does not hold the probe vectors"):
        ProbeVectors.from_json(text, SPACE, "the-file")


@pytest.mark.parametrize("times", [2.0, 0.5, 1e-6])
def test_vectors_of_another_length_are_others(times):
    """A cosine does not see it, and inner products of vectors that are not normalized do."""
    known = of_fake(dtype="bfloat16")
    vectors = known.vectors[Role.QUERY]
    assert known.unlike(Role.QUERY, vectors * np.float32(1.03), "bfloat16") is None
    assert "times as long" in known.unlike(Role.QUERY, vectors * np.float32(times), "bfloat16")


class Overflowing(FakeEncoder):
    """Makes no usable vector of texts that hold any of these words."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self._words = words

    def encode(self, texts, role):
        if any(word in text for word in self._words for text in texts):
            raise NonFiniteVectorsError([0])
        return super().encode(texts, role)


def test_a_text_that_overflows_in_a_precision_is_left_out_and_no_reason_to_refuse():
    """A job rejects such a row, so no vector of it is stored."""
    made = ProbeVectors.of(Overflowing("Fibonacci", "Who wrote it?"))
    assert made.texts == tuple(text for text in PROBE_TEXTS if text != "Who wrote it?")
    made.check(FakeEncoder(), WHERE)
    of_fake().check(Overflowing("Who wrote it?"), WHERE)
    with pytest.raises(SpaceMismatchError):
        made.check(turned(FakeEncoder(), 0.9, Role.QUERY), WHERE)


def test_an_encoder_that_makes_no_usable_vector_of_any_text_has_failed():
    with pytest.raises(BackendError, match="found none that are finite"):
        ProbeVectors.of(Overflowing(""))


# With a model


def settings(folder: Path, **changes: str) -> EncoderSettings:
    given = {"backend": "torch", "dtype": "float32", "query_pooling": "mean"}
    return EncoderSettings(
        **{"model": str(folder), "document_pooling": "cls", **given, **changes}, num_threads=1
    )


def edited(model: Path, copy: Path, **changes: object) -> Path:
    """Return a copy of a model whose config.json says something else."""
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **changes}))
    return copy


@pytest.mark.parametrize(
    "changes",
    [{"num_attention_heads": 1}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.5}],
    ids=str,
)
def test_an_edited_configuration_is_the_same_space_and_other_vectors(tiny_model, tmp_path, changes):
    known = ProbeVectors.of(load_encoder(settings(tiny_model)))
    other = load_encoder(settings(edited(tiny_model, tmp_path / "other", **changes)))
    assert other.space.fingerprint == known.fingerprint
    with pytest.raises(SpaceMismatchError, match="config"):
        known.check(other, WHERE)


def test_how_far_attention_reaches_shows_in_a_text_that_is_longer(tiny_model, tmp_path):
    """Of a text within the window, a wider one is the same."""
    narrow = Path(shutil.copytree(tiny_model, tmp_path / "narrow"))
    tiny_transformer(
        "modernbert",
        vocab_size=json.loads((narrow / "config.json").read_text())["vocab_size"],
        max_position_embeddings=1024,
        local_attention=400,
        **{"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    ).save_pretrained(narrow)
    (narrow / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    wide = edited(narrow, tmp_path / "wide", local_attention=1600)
    one, other = load_encoder(settings(narrow)), load_encoder(settings(wide))
    assert one.space == other.space
    ProbeVectors.of(one, SHORT_PROBE_TEXTS).check(other, WHERE)
    with pytest.raises(SpaceMismatchError, match="'Line 1 of file"):
        ProbeVectors.of(one).check(other, WHERE)


def test_one_text_is_longer_than_a_thousand_tokens(tiny_model):
    n_tokens = Tokenizer(tiny_model / "tokenizer.json", 8192).tokenize(PROBE_TEXTS).n_tokens
    assert n_tokens[:-1].max() < 200
    assert 1024 < n_tokens[-1] < 2048


def test_another_version_of_twofold_alone_is_no_reason_to_refuse(tiny_model):
    encoder = load_encoder(settings(tiny_model))
    assert encoder.provenance["twofold"] == version("twofold")
    known = ProbeVectors.of(encoder)
    replace(known, provenance={**known.provenance, "twofold": "0.0.1"}).check(encoder, WHERE)


@pytest.mark.parametrize("changes", [{"backend": "openvino"}, {"dtype": "bfloat16"}], ids=str)
def test_another_backend_or_precision_computes_the_same(tiny_model, changes):
    known = ProbeVectors.of(load_encoder(settings(tiny_model)))
    known.check(load_encoder(settings(tiny_model, **changes)), WHERE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_graph_is_compiled_for_it_that_nobody_else_has_use_for(tiny_model, dtype):
    """That of [CLS] alone holds weights of its own, and an endpoint would keep it."""
    if dtype == "bfloat16" and not detect_hardware().openvino_bfloat16:
        pytest.skip("OpenVINO has no bfloat16 on this CPU")
    encoder = load_encoder(settings(tiny_model, backend="openvino", dtype=dtype))
    ProbeVectors.of(encoder)
    assert encoder._backend._many is None
    assert encoder._backend._many_cls is None
