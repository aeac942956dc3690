"""What all dialects share: receipts in headers, checked bodies, large answers."""

from __future__ import annotations

from itertools import product

import pytest

from serving.dialects.cohere import CohereEmbed
from serving.dialects.openai import OpenAIEmbeddings
from serving.dialects.tei import TeiEmbed
from support.replica_app import (
    DIALECTS,
    NINE,
    QUERY,
    V1,
    WIDE,
    App,
    WideEncoder,
    check_vectors,
    refusal,
    vector,
)


def test_what_is_too_long_is_cut_and_said(app: App):
    response = app.post(V1, input=["short", NINE, "short", NINE])

    body = response.json()
    assert [item["truncated"] for item in body["data"]] == [False, True, False, True]
    assert [item["n_tokens"] for item in body["data"]] == [1, 8, 1, 8]
    assert body["usage"]["prompt_tokens"] == 18
    assert response.headers["x-truncated-count"] == "2"
    assert response.headers["x-truncated-inputs"] == "1,3"
    check_vectors(response, [vector(text) for text in ["short", NINE, "short", NINE]])


def test_a_header_lists_at_most_a_hundred_cut_inputs_and_counts_all(app: App):
    headers = app.post(V1, input=[NINE] * 130).headers

    assert headers["x-truncated-count"] == "130"
    assert headers["x-truncated-inputs"] == ",".join(map(str, range(100)))


def test_every_success_carries_its_receipts(app: App):
    # The longer text is tokenized in a thread.
    for (path, field), text in product(DIALECTS, ("a", "a" * 300)):
        headers = app.post(path, **{field: [text]}).headers
        assert headers["content-type"] == "application/json"
        assert headers["x-embedding-role"] == "query"
        assert headers["x-embedding-space"] == WIDE.fingerprint
        assert headers["x-truncated-count"] == "0"
        assert "x-truncated-inputs" not in headers
        for stage in ("tokenize", "queue", "forward"):
            assert 0 <= float(headers[f"x-{stage}-ms"]) < 10_000, "it is no moment on a clock"


def test_a_large_answer_is_as_right_as_a_small_one():
    app, texts = App(max_inputs=5000), [f"text {n}" for n in range(5000)]

    response = app.post(V1, input=texts)

    expected = WideEncoder().encode(texts, QUERY).vectors
    check_vectors(response, list(expected))


@pytest.mark.parametrize(("path", "field"), DIALECTS)
def test_an_unknown_field_is_refused_by_its_name(app: App, path: str, field: str):
    message = refusal(app.post(path, **{field: ["a"], "inptu_type": "query"}), 400)

    assert message.startswith("inptu_type: ")


def test_many_unknown_fields_are_one_error(app: App):
    message = refusal(app.post(V1, input="a", **{f"f{n}": 1 for n in range(50_000)}), 400)
    assert "found 50000 unknown" in message
    assert len(message) < 1000


@pytest.mark.parametrize(("path", "field"), DIALECTS)
@pytest.mark.parametrize(
    "given", [None, 7, 1.5, True, {"text": "a"}, ["a", None], ["a", 7], ["a", ["b"]], [{}], [True]]
)
def test_inputs_of_a_wrong_type_are_refused_by_the_fields_name(
    app: App, path: str, field: str, given: object
):
    message = refusal(app.post(path, **{field: given}), 400)

    assert message.startswith(f"{field}: expected ")
    assert ", found " in message
    assert "; " not in message, "the same field is told twice"


@pytest.mark.parametrize(("path", "field"), DIALECTS)
def test_a_missing_input_is_refused_by_the_fields_name(app: App, path: str, field: str):
    other = {"normalize": None} if path == "/embed" else {"model": None}
    assert f"{field}: expected a value, found none" in refusal(app.post(path, **other), 400)


def test_a_large_body_of_wrong_elements_is_refused_as_fast_as_a_small_one(app: App):
    """Each element was an error of its own, in each branch of the union: a minute for 4 MB."""
    message = refusal(app.post(V1, input=[1.5] * 200_000), 400)
    assert message.startswith("input: expected a text")


@pytest.mark.parametrize(("path", "field"), DIALECTS)
@pytest.mark.parametrize("each", [[1], [], "", None, {}])
def test_too_many_inputs_are_refused_before_any_of_them_is_looked_at(
    path: str, field: str, each: object, monkeypatch: pytest.MonkeyPatch
):
    """A million lists of one id each took the event loop 0.4 s."""
    app = App(max_inputs=7)

    def looked_at(*_: object, **__: object) -> None:
        pytest.fail("the inputs were looked at")

    with monkeypatch.context() as patch:
        for model in (OpenAIEmbeddings, CohereEmbed, TeiEmbed):
            patch.setattr(model, "model_validate", looked_at)
        message = refusal(app.post(path, **{field: [each] * 20_000}), 413)

    assert "at most 7 inputs, found 20000" in message
    assert app.metrics.rejections == [("-", "too_large")]


def test_the_ids_of_one_text_are_one_input():
    app = App(max_inputs=2, accept_token_arrays=True)

    assert app.post(V1, input=[1, 2, 3]).status_code == 200
    assert "at most 2 inputs" in refusal(app.post(V1, input=[[1], [2], [3]]), 413)
