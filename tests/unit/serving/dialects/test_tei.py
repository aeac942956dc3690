"""text-embeddings-inference's API: bare vectors, prompt names, truncation, `/info`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from encoder.space import Role
from support.replica_app import (
    DOCUMENT,
    NINE,
    QUERY,
    TEI,
    WIDE,
    App,
    check_vectors,
    embeddings,
    refusal,
    vector,
)


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_tei_answers_with_bare_vectors(app: App, path: str):
    response = app.post(path, inputs=["a", "b c"])
    check_vectors(response, [vector("a"), vector("b c")])
    assert isinstance(response.json(), list)
    check_vectors(app.post(path, inputs="a"), [vector("a")])


def test_tei_takes_the_role_from_the_prompts_name(app: App):
    check_vectors(app.post(TEI, inputs="a", prompt_name="passage"), [vector("a", DOCUMENT)])
    check_vectors(app.post(TEI, inputs="a", prompt_name="query"), [vector("a", QUERY)])
    check_vectors(app.post(TEI, inputs="a", prompt_name=None), [vector("a", QUERY)])
    assert "prompt_name" in refusal(app.post(TEI, inputs="a", prompt_name="s2p"), 400)


@pytest.mark.parametrize("role", [QUERY, DOCUMENT], ids=lambda role: role.value)
def test_tei_takes_the_role_from_the_address_of_a_client_that_cannot_send_it(app: App, role: Role):
    for path in (f"/{role.value}", f"/{role.value}/embed"):
        check_vectors(app.post(path, inputs=["a", "b"]), [vector("a", role), vector("b", role)])
        check_vectors(app.post(path, inputs="a", prompt_name=role.value), [vector("a", role)])
    assert app.get(f"/{role.value}/info").json()["default_role"] == role.value


def test_tei_refuses_a_role_that_is_not_the_addresss(app: App):
    message = refusal(app.post("/document/embed", inputs="a", prompt_name="query"), 400)
    assert "prompt_name says query and the address says document" in message


def test_tei_normalize_may_only_be_as_the_space_has_it(app: App):
    check_vectors(app.post(TEI, inputs="a", normalize=True), [vector("a")])
    message = refusal(app.post(TEI, inputs="a", normalize=False), 400)
    assert "normalize: expected true, as this space has it, found false; send true or" in message
    assert "(Haystack: normalize=True)" in message
    check_vectors(app.post(TEI, inputs="a", normalize=None), [vector("a")])


def test_tei_of_a_space_that_is_not_normalized_takes_false_alone(monkeypatch: pytest.MonkeyPatch):
    app = App()
    monkeypatch.setattr(app.service, "space", replace(WIDE, normalize=False))

    check_vectors(app.post(TEI, inputs="a", normalize=False), [vector("a")])
    message = refusal(app.post(TEI, inputs="a", normalize=True), 400)
    assert "normalize: expected false, as this space has it, found true" in message


def test_tei_takes_the_options_of_the_hubs_own_api_and_no_others(app: App):
    # As Weaviate's text2vec-huggingface and LiteLLM's huggingface/ send them.
    options = {"use_cache": True, "wait_for_model": True, "use_gpu": False}
    check_vectors(app.post(TEI, inputs=["a"], options=options), [vector("a")])
    check_vectors(app.post(TEI, inputs=["a"], options=None), [vector("a")])
    unknown = refusal(app.post(TEI, inputs="a", options={"dimensions": 4}), 400)
    assert "expected fields of this API (wait_for_model, use_gpu, use_cache)" in unknown
    message = refusal(app.post(TEI, inputs="a", options={"use_cache": "yes"}), 400)
    assert message.startswith("options: expected a valid boolean, found ")


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, NINE),
        ({"truncate": True}, NINE),
        ({"truncate": None, "truncation_direction": "right"}, NINE),
        ({"truncation_direction": None}, NINE),
        ({"truncate": True, "truncation_direction": "Right"}, NINE),
        ({"truncate": True, "truncation_direction": "Left"}, NINE.removeprefix("one ")),
        ({"truncation_direction": "left"}, NINE.removeprefix("one ")),
    ],
)
def test_tei_cuts_at_the_side_that_is_named(app: App, fields: dict[str, Any], kept: str):
    response = app.post(TEI, inputs=["short", NINE], **fields)

    check_vectors(response, [vector("short"), vector(kept)])
    assert response.headers["x-truncated-inputs"] == "1"


def test_tei_refuses_what_is_too_long_where_the_client_wants_that(app: App):
    assert "at [0]" in refusal(app.post(TEI, inputs=NINE, truncate=False), 400)
    refusal(app.post(TEI, inputs="a", truncation_direction="up"), 400)


def test_tei_dimensions_are_another_space(app: App):
    response = app.post(TEI, inputs="a", dimensions=4)

    assert len(embeddings(response)[0]) == 4
    assert response.headers["x-embedding-space"] != WIDE.fingerprint


def test_tei_info_names_the_model_the_space_and_the_limits():
    app = App(max_inputs=7, max_request_tokens=50, max_queued_tokens=20, corpus="out/")

    info = app.get("/info").json()

    assert info["model_id"] == "org/fake"
    assert info["model_dtype"] == "float32"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_input_length"] == 8
    assert info["max_client_batch_size"] == 7
    assert info["max_batch_tokens"] == 2048
    assert (info["max_request_tokens"], info["max_queued_tokens"]) == (50, 20)
    assert info["default_role"] == "query"
    assert info["embedding_space"]["fingerprint"] == WIDE.fingerprint
    assert info["embedding_space"]["document"]["pooling"] == "cls"
    assert info["corpus"] == "out/"
