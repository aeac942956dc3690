"""Cohere's API: types of vectors, roles, truncation."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from support.replica_app import (
    DOCUMENT,
    NAME,
    NINE,
    QUERY,
    V2,
    WIDE,
    App,
    check_vectors,
    embeddings,
    refusal,
    vector,
)


def test_cohere_embeds_texts_in_the_types_that_are_asked_for(app: App):
    texts = ["first text", "second"]
    types = ["float", "base64", "binary", "ubinary"]

    response = app.post(
        V2, texts=texts, model=NAME, input_type="search_document", embedding_types=types
    )

    assert response.status_code == 200, response.text
    body = response.json()
    expected = np.array([vector(text, DOCUMENT) for text in texts])
    found = body["embeddings"]
    assert list(found) == types
    assert np.array(found["float"], np.float32).tobytes() == expected.tobytes()
    assert [base64.b64decode(text) for text in found["base64"]] == [
        row.astype("<f4").tobytes() for row in expected
    ]
    bits = np.packbits(expected > 0, axis=1)
    assert bits.shape == (2, 2)
    assert len(np.unique(bits)) > 1
    assert found["ubinary"] == bits.tolist()
    assert found["binary"] == (bits.astype(int) - 128).tolist()
    assert body["texts"] == texts
    assert body["response_type"] == "embeddings_by_type"
    assert body["meta"] == {
        "api_version": {"version": "2"},
        "billed_units": {"input_tokens": 3},
        "truncated": [],
    }
    assert body["id"]


def test_cohere_gives_floats_where_no_type_is_named(app: App):
    body = app.post(V2, texts=["a"], input_type="search_query").json()

    assert list(body["embeddings"]) == ["float"]
    assert np.array(body["embeddings"]["float"][0], np.float32).tobytes() == vector("a").tobytes()


def test_coheres_version_1_answers_with_bare_floats_where_no_type_is_named(app: App):
    texts = ["first text", "second"]

    for fields in ({}, {"embedding_types": None}):
        answer = app.post("/v1/embed", texts=texts, input_type="search_document", **fields)
        check_vectors(answer, [vector(text, DOCUMENT) for text in texts])
        body = answer.json()
        assert body.keys() == {"id", "texts", "embeddings", "response_type", "meta"}
        assert body["response_type"] == "embeddings_floats"
        assert body["texts"] == texts
        assert body["meta"]["api_version"] == {"version": "1"}
        assert body["meta"]["billed_units"] == {"input_tokens": 3}


def test_coheres_version_1_answers_by_type_where_types_are_named(app: App):
    asked = {"texts": ["a"], "embedding_types": ["float", "ubinary"]}

    first, second = (app.post(path, **asked).json() for path in ("/v1/embed", V2))

    assert first["response_type"] == "embeddings_by_type"
    assert first["embeddings"] == second["embeddings"]


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_cohere_refuses_quantised_types_and_says_why(app: App, kind: str):
    message = refusal(app.post(V2, texts=["a"], embedding_types=["float", kind]), 400)

    assert f"{kind} needs a calibration that the embedding space does not hold" in message


@pytest.mark.parametrize("kind", ["binary", "ubinary"])
def test_cohere_packs_bits_only_of_whole_bytes(app: App, kind: str):
    message = refusal(app.post(V2, texts=["a"], embedding_types=[kind], output_dimension=12), 400)
    assert "multiple of 8, found 12" in message
    assert app.post(V2, texts=["a"], output_dimension=12).status_code == 200, "these are floats"

    (packed,) = embeddings(app.post(V2, texts=["a"], embedding_types=[kind], output_dimension=8))
    assert len(packed) == 1


def test_cohere_output_dimension_is_another_space(app: App):
    response = app.post(V2, texts=["a"], output_dimension=8)

    kept = vector("a")[:8]
    np.testing.assert_allclose(embeddings(response)[0], kept / np.linalg.norm(kept), rtol=1e-6)
    cut = replace(WIDE, truncate_dim=8, dimension=8)
    assert response.headers["x-embedding-space"] == cut.fingerprint


def test_cohere_cuts_where_it_is_told_to(app: App):
    last_eight = NINE.removeprefix("one ")

    for fields, kept in (
        ({}, NINE),
        ({"truncate": None}, NINE),
        ({"truncate": "END"}, NINE),
        ({"truncate": "START"}, last_eight),
    ):
        response = app.post(V2, texts=["short", NINE], **fields)
        check_vectors(response, [vector("short"), vector(kept)])
        assert response.json()["meta"]["truncated"] == [1]
        assert response.headers["x-truncated-inputs"] == "1"
    message = refusal(app.post(V2, texts=["short", NINE], truncate="NONE"), 400)
    assert "found longer ones at [1]" in message
    refusal(app.post(V2, texts=["short"], truncate="MIDDLE"), 400)


def test_cohere_takes_the_role_from_input_type_or_name_and_refuses_two(app: App):
    for word, role in (("search_query", QUERY), ("classification", DOCUMENT)):
        check_vectors(app.post(V2, texts=["a"], input_type=word), [vector("a", role)])
    check_vectors(app.post(V2, texts=["a"], model=f"{NAME}-document"), [vector("a", DOCUMENT)])
    refusal(app.post(V2, texts=["a"], model=f"{NAME}-document", input_type="search_query"), 400)
    assert "input_type" in refusal(app.post(V2, texts=["a"], input_type="image"), 400)


def test_cohere_max_tokens_may_only_be_the_models_own(app: App):
    assert app.post(V2, texts=["a"], max_tokens=8).status_code == 200
    assert "max_tokens: expected 8" in refusal(app.post(V2, texts=["a"], max_tokens=4), 400)


def test_cohere_refuses_to_answer_in_no_type_at_all(app: App):
    message = refusal(app.post(V2, texts=["a"], embedding_types=[]), 400)
    assert "embedding_types: expected at least one" in message


def test_cohere_takes_a_priority_and_no_inputs_that_are_no_texts(app: App):
    check_vectors(app.post(V2, texts=["a"], priority=3), [vector("a")])
    assert "priority: expected " in refusal(app.post(V2, texts=["a"], priority="high"), 400)
    inputs = [{"content": [{"type": "text", "text": "a"}]}]
    assert "inputs" in refusal(app.post(V2, texts=["a"], inputs=inputs), 400)
