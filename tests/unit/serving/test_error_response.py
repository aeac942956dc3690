"""Every refusal has OpenAI's shape, whatever the client sent."""

from __future__ import annotations

import json

import pytest

from encoder.tokenizer import Tokenizer
from support.models import minilm_folder
from support.replica_app import DIALECTS, TEI, V1, V2, App, refusal


def test_an_unknown_path_and_a_wrong_method_are_told_in_the_same_shape(app: App):
    assert "/v1/nothing" in refusal(app.post("/v1/nothing"), 404)
    assert "/nothing" in refusal(app.get("/nothing"), 404)
    wrong = app.get(V1)
    assert "GET /v1/embeddings" in refusal(wrong, 405)
    assert wrong.headers["allow"] == "POST"
    assert "GET /v1/embeddings" in json.loads(app.access_lines()[-1])["error"]


def test_a_code_is_a_word_of_openais_or_ours_and_never_a_number():
    """Clients of .NET, Java and Rust read a string or null, and fail on a number."""
    app, locked = App(max_inputs=1), App(api_keys=("right",))
    codes = {
        "model_not_found": app.post(V1, input="a", model="ada"),
        "unknown_url": app.post("/v1/nothing"),
        "invalid_api_key": locked.post(V1, input="a"),
        "request_too_large": app.post(V1, input=["a", "b"]),
        "unsupported_media_type": app.post_text(V1, "{}", content_type="text/plain"),
        "text_failed": app.post(V1, input="poison"),
    }

    assert {code: answer.json()["error"]["code"] for code, answer in codes.items()} == {
        code: code for code in codes
    }
    assert app.post(V1, input=7).json()["error"]["code"] is None
    described = app.get("/openapi.json").json()["components"]["schemas"]["ErrorDetail"]
    kinds = [choice["type"] for choice in described["properties"]["code"]["anyOf"]]
    assert kinds == ["string", "null"]


def test_a_body_that_is_not_utf_8_is_told_so(app: App):
    message = refusal(app.post_text(V1, '{"input": "café"}'.encode("latin-1")), 400)

    assert "body: expected JSON in UTF-8, found byte 0xe9 at position 14" in message


def test_a_text_that_makes_the_model_raise_is_not_sent_again(app: App):
    """openai's client would, twice."""
    answer = app.post(V1, input="poison")

    refusal(answer, 500, "server_error")
    assert answer.headers["x-should-retry"] == "false"


def test_an_error_quotes_a_part_of_what_the_client_sent_in_the_answer_and_in_the_log():
    app = App()

    message = refusal(app.post(V1, input="a", input_type="x" * 100_000), 400)

    assert message.startswith("input_type: expected one of query, ")
    assert len(message) < 2100
    assert len(app.access_lines()[-1]) < 2500


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "nul",
        "{'input': 'a'}",
        '{"input": "a"',
        '{"input": "a"} x',
        b"\xff\xfe{}",
        "[" * 100_000,
        '{"input": "a", "user": ' + "[" * 1_000 + "]" * 1_000 + "}",
        '{"input": [[' + "9" * 5_000 + "]]}",
        "[]",
        "null",
        '"a"',
        "7",
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize(("path", "_field"), DIALECTS)
def test_a_body_that_is_no_json_object_is_refused(
    app: App, path: str, _field: str, body: str | bytes
):
    refusal(app.post_text(path, body), 400)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (V1, r'{"input": "\ud800"}'),
        (V1, r'{"input": ["fine", "a \udfff"]}'),
        (V1, r'{"input": [["\ud800"]]}'),
        (V1, r'{"input": "a", "input_type": "\ud800"}'),
        (V1, r'{"input": "a", "encoding_format": "\ud800"}'),
        (V1, r'{"input": "a", "\ud800": 1}'),
        (V1, r'{"input": "a", "user": {"\ud800": "\ud800"}}'),
        (V2, r'{"texts": ["\ud800"]}'),
        (V2, r'{"texts": ["a"], "truncate": "\ud800"}'),
        (TEI, r'{"inputs": "\ud800"}'),
        (TEI, r'{"inputs": ["fine", "\ud800"]}'),
        (TEI, r'{"inputs": "a", "truncation_direction": "\ud800"}'),
    ],
)
def test_a_lone_surrogate_is_refused_in_an_answer_that_can_be_read(path: str, body: str):
    app, real = App(), Tokenizer(minilm_folder() / "tokenizer.json", 8)
    app.encoder.tokenize = lambda texts, role, **cut: real.tokenize(texts, **cut)  # type: ignore[method-assign]

    refusal(app.post_text(path, body), 400)


def test_a_defect_is_500_with_the_request_id_and_nothing_of_its_inside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    app = App()

    async def defective(*_: object) -> None:
        raise ZeroDivisionError("inner secret")

    monkeypatch.setattr(app.service, "embed", defective)
    for path, field in DIALECTS:
        response = app.post(path, {"x-request-id": "find-me"}, **{field: ["a"]})
        message = refusal(response, 500, "server_error")
        assert "find-me" in message
        assert "secret" not in message
    assert app.metrics.answers == [
        ("query", "openai", 500),
        ("query", "cohere", 500),
        ("query", "tei", 500),
    ]
