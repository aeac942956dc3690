"""OpenAI's API: roles, formats, token ids, dimensions; the model is a fake."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from encoder.space import Role
from support.replica_app import (
    DOCUMENT,
    NAME,
    NINE,
    QUERY,
    V1,
    WIDE,
    App,
    check_vectors,
    embeddings,
    refusal,
    vector,
)


def test_openai_embeds_one_text_as_a_query(app: App):
    response = app.post(V1, input="hello there", model=NAME)

    check_vectors(response, [vector("hello there")])
    body = response.json()
    assert body["object"] == "list"
    assert body["model"] == NAME
    assert body["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    (item,) = body["data"]
    assert item["object"] == "embedding"
    assert (item["n_tokens"], item["truncated"]) == (2, False)


def test_openai_embeds_a_list_in_its_order(app: App):
    texts = [f"text number {n}" for n in range(7)]

    response = app.post(V1, input=texts, model=NAME)

    check_vectors(response, [vector(text) for text in texts])
    assert response.json()["usage"] == {"prompt_tokens": 21, "total_tokens": 21}


def test_openai_base64_holds_the_floats_bit_for_bit(app: App):
    texts = ["a", "b c"]
    floats = embeddings(app.post(V1, input=texts, encoding_format="float"))

    encoded = embeddings(app.post(V1, input=texts, encoding_format="base64"))

    for text, as_floats, as_base64 in zip(texts, floats, encoded, strict=True):
        found = np.frombuffer(base64.b64decode(as_base64), "<f4")
        assert found.tobytes() == np.array(as_floats, "<f4").tobytes()
        assert found.tobytes() == vector(text).astype("<f4").tobytes()


def test_openai_takes_the_encoding_format_that_litellm_wraps_in_a_list(app: App):
    (found,) = embeddings(app.post(V1, input="a", encoding_format=["base64"]))
    assert isinstance(found, str)
    refusal(app.post(V1, input="a", encoding_format=["base64", "float"]), 400)
    refusal(app.post(V1, input="a", encoding_format=[]), 400)


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2, 3], [4]]])
def test_openai_refuses_token_ids_and_says_what_langchain_has_to_set(app: App, ids: list[Any]):
    message = refusal(app.post(V1, input=ids), 400)

    assert "check_embedding_ctx_length=False" in message
    assert "--accept-token-arrays" in message


def test_openai_takes_token_ids_where_the_operator_allows_it():
    app = App(accept_token_arrays=True)
    first, second = (
        ids.tolist() for ids in app.encoder.tokenize(["one two", NINE], QUERY).input_ids
    )

    check_vectors(app.post(V1, input=first), [vector("one two")])
    check_vectors(app.post(V1, input=[first, second]), [vector("one two"), vector(NINE)])
    cut = app.post(V1, input=[first, [*second, 7]]).json()
    assert [item["truncated"] for item in cut["data"]] == [False, True]
    assert [item["n_tokens"] for item in cut["data"]] == [2, 8]
    check_vectors(app.post(V1, input="one two"), [vector("one two")])


def test_openai_cuts_token_ids_at_the_side_that_is_named():
    app = App(accept_token_arrays=True)
    nine = list(range(1, 10))

    first, last = (app.post(V1, input=nine, truncate=where) for where in ("END", "START"))

    assert embeddings(first) == embeddings(app.post(V1, input=nine[:-1]))
    assert embeddings(last) == embeddings(app.post(V1, input=nine[1:])) != embeddings(first)
    assert [answer.headers["x-truncated-count"] for answer in (first, last)] == ["1", "1"]


def test_openai_dimensions_cut_the_vector_to_unit_length_in_a_space_of_their_own(app: App):
    response = app.post(V1, input=["a", "b"], dimensions=5)

    found = np.array(embeddings(response), np.float32)
    for row, text in zip(found, "ab", strict=True):
        kept = vector(text)[:5]
        np.testing.assert_allclose(row, kept / np.linalg.norm(kept), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    cut = replace(WIDE, truncate_dim=5, dimension=5)
    assert response.headers["x-embedding-space"] == cut.fingerprint != WIDE.fingerprint


@pytest.mark.parametrize(
    ("fields", "role"),
    [
        ({}, QUERY),
        ({"model": None}, QUERY),
        ({"model": f"{NAME}-query"}, QUERY),
        ({"model": f"{NAME}-document"}, DOCUMENT),
        ({"model": f"{NAME}-passage"}, DOCUMENT),
        ({"input_type": "query"}, QUERY),
        ({"input_type": "passage"}, DOCUMENT),
        ({"input_type": "document", "model": NAME}, DOCUMENT),
        ({"task": "retrieval.query"}, QUERY),
        ({"task": "retrieval.passage"}, DOCUMENT),
        ({"task": "text-matching"}, DOCUMENT),
        ({"model": f"{NAME}-document", "input_type": "document", "task": "separation"}, DOCUMENT),
    ],
)
def test_openai_takes_the_role_from_the_name_the_type_or_the_task(
    app: App, fields: dict[str, Any], role: Role
):
    response = app.post(V1, input="some text", **fields)

    check_vectors(response, [vector("some text", role)])
    assert response.headers["x-embedding-role"] == role.value
    assert response.headers["x-embedding-space"] == WIDE.fingerprint
    assert response.json()["model"] == (fields.get("model") or NAME)


def test_the_operator_chooses_the_role_of_requests_that_name_none():
    app = App(default_role="document")

    assert app.post(V1, input="a").headers["x-embedding-role"] == "document"
    assert app.post(V1, input="a", task="retrieval.query").headers["x-embedding-role"] == "query"


@pytest.mark.parametrize(
    "fields",
    [
        {"model": f"{NAME}-query", "input_type": "document"},
        {"model": f"{NAME}-document", "task": "retrieval.query"},
        {"input_type": "query", "task": "retrieval.passage"},
    ],
)
def test_fields_that_name_two_roles_are_refused(app: App, fields: dict[str, str]):
    message = refusal(app.post(V1, input="a", **fields), 400)

    assert "says query" in message
    assert "says document" in message


@pytest.mark.parametrize("field", ["input_type", "task"])
def test_a_word_that_names_no_role_is_refused_never_guessed(app: App, field: str):
    message = refusal(app.post(V1, input="a", **{field: "querry"}), 400)

    assert message.startswith(f"{field}: expected one of query, ")
    assert "found 'querry'" in message


def test_openai_refuses_what_is_too_long_where_the_client_wants_that(app: App):
    message = refusal(app.post(V1, input=["short", NINE], truncate=False), 400)

    assert "at most 8 tokens, found longer ones at [1]" in message
    assert app.post(V1, input=["short"], truncate=False).status_code == 200
    # As NIM's clients say it.
    assert refusal(app.post(V1, input=["short", NINE], truncate="NONE"), 400) == message
    assert app.post(V1, input=["short"], truncate="NONE").status_code == 200
    ends = {where: app.post(V1, input=[NINE], truncate=where).json() for where in ("START", "END")}
    assert ends["END"] == app.post(V1, input=[NINE]).json()
    assert ends["START"]["data"][0]["embedding"] != ends["END"]["data"][0]["embedding"]


def test_openai_takes_null_for_the_default_of_what_is_cut(app: App):
    answer = app.post(V1, input=[NINE], truncate=None)

    check_vectors(answer, [vector(NINE)])
    assert answer.headers["x-truncated-count"] == "1"


def test_openai_names_all_that_truncate_may_be(app: App):
    message = refusal(app.post(V1, input="a", truncate="end"), 400)

    assert message.startswith("truncate: expected a valid boolean or 'NONE', 'START' or 'END', ")
    assert "found str 'end'" in message


def test_fields_of_openai_that_change_nothing_are_taken(app: App):
    check_vectors(app.post(V1, input="a", user="somebody"), [vector("a")])


@pytest.mark.parametrize(
    "fields",
    [
        {"model": 7},
        {"encoding_format": "hex"},
        {"encoding_format": 7},
        {"truncate": "yes"},
        {"truncate": 1},
        {"input_type": 7},
        {"task": ["query"]},
        {"user": 7},
    ],
)
def test_other_fields_of_a_wrong_type_are_refused_by_their_name(app: App, fields: dict[str, Any]):
    (name,) = fields
    assert refusal(app.post(V1, input="a", **fields), 400).startswith(f"{name}: expected ")


@pytest.mark.parametrize(
    "body",
    [
        '{"input": NaN}',
        '{"input": [NaN]}',
        '{"input": [[Infinity]]}',
        '{"input": "a", "dimensions": NaN}',
        '{"input": "a", "dimensions": -Infinity}',
        '{"input": "a", "dimensions": 1e999}',
        '{"input": "a", "model": NaN}',
        "NaN",
    ],
)
def test_what_is_not_a_number_is_refused(app: App, body: str):
    refusal(app.post_text(V1, body), 400)
