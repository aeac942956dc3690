"""Requests as they go over the wire."""

from __future__ import annotations

import json

import pytest

from benchmarks.endpoint.requests import cosine, http_requests


def test_the_length_is_in_bytes_and_the_body_what_openais_client_sends():
    (request,) = http_requests(["¿dónde está?"], 8000)
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1:8000\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body) == {
        "input": "¿dónde está?",
        "model": "bench",
        "encoding_format": "base64",
    }


def test_a_request_may_have_several_texts_and_more_fields():
    (request,) = http_requests([["one", "two"]], 8000, input_type="document")
    body = json.loads(request.partition(b"\r\n\r\n")[2])
    assert body["input"] == ["one", "two"]
    assert body["input_type"] == "document"


def test_the_cosine_does_not_depend_on_lengths():
    assert cosine([1, 0], [5, 0]) == pytest.approx(1)
    assert cosine([1, 0], [1, 1]) == pytest.approx(0.5**0.5)
    with pytest.raises(ValueError, match="shorter"):
        cosine([1, 0], [1])
