"""The whole web application in this process: a fake encoder behind it, no Ray, no socket."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from encoder.encoder import EncodedVectors
from encoder.space import Role
from encoder.tokenizer import Tokenized, Tokenizer
from serving.embedding import EmbeddingService
from serving.http_app import build_http_app
from serving.settings import ServingSettings
from support.fake_encoder import SPACE, FakeEncoder
from support.models import minilm_folder

NAME = "org/fake"
QUERY, DOCUMENT = Role.QUERY, Role.DOCUMENT
WIDE = replace(SPACE, dimension=16)
NINE = "one two three four five six seven eight nine"
"""A text of one token more than the fake encoder takes."""
V1, V2, TEI = "/v1/embeddings", "/v2/embed", "/embed"
DIALECTS = [(V1, "input"), (V2, "texts"), (TEI, "inputs")]


class WideEncoder(FakeEncoder):
    """Vectors of 16 numbers, enough for two bytes of bits."""

    def __init__(self) -> None:
        super().__init__(WIDE)

    def encode_tokenized(
        self,
        tokenized: Tokenized,
        roles: Role | Sequence[Role],
        *,
        heartbeat: Callable[[], None] | None = None,
    ) -> EncodedVectors:
        narrow = super().encode_tokenized(tokenized, roles, heartbeat=heartbeat)
        wide = np.kron(narrow.vectors, np.array([1, -0.5, 0.25, -2], np.float32))  # (N, 16)
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        return EncodedVectors(wide, narrow.padded_tokens)


def vector(text: str, role: Role = QUERY) -> np.ndarray:
    return WideEncoder().encode([text], role).vectors[0]


class RecordedMetrics:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str, int]] = []
        self.rejections: list[tuple[Role, str]] = []
        self.embeddings: list[tuple[Role, int, int]] = []
        self.serializations: list[Role] = []

    def answered(self, role: str, dialect: str, status: int) -> None:
        self.answers.append((role, dialect, status))

    def rejected(self, role: Role, reason: str) -> None:
        self.rejections.append((role, reason))

    def embedded(self, role: Role, *, n_tokens: int, truncated: int, **seconds: float) -> None:
        assert seconds.keys() == {"tokenize_s", "queue_s", "forward_s"}
        self.embeddings.append((role, n_tokens, truncated))

    def serialized(self, role: Role, seconds: float) -> None:
        self.serializations.append(role)


class App:
    """One replica's application and what it stands on."""

    def __init__(self, **settings: Any) -> None:
        self.encoder = WideEncoder()
        self.metrics = RecordedMetrics()
        self.settings = ServingSettings(**{"model": NAME, **settings})
        self.service = EmbeddingService(self.encoder, self.settings, self.metrics)  # type: ignore[arg-type]
        self.asgi = build_http_app(self.service, self.settings, self.metrics, "1.2.3")  # type: ignore[arg-type]
        self.forward_may_go_on = threading.Event()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.asgi), base_url="http://replica"
        )

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **options)

        return asyncio.run(asyncio.wait_for(send(), 20))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(
        self, path: str, _headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        return self.request("POST", path, json=body, headers=_headers)

    def post_text(self, path: str, body: str | bytes, **headers: str) -> httpx.Response:
        headers = {"content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.request("POST", path, content=body, headers=headers)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Forwards begin, and end only when this ends."""
        self.encoder.on_forward = lambda: self.forward_may_go_on.wait(20) and None
        try:
            yield
        finally:
            self.forward_may_go_on.set()

    async def a_forward_has_begun(self) -> None:
        while not self.encoder.forwards:  # noqa: ASYNC110 - they are counted in another thread
            await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def app() -> App:
    return App()


def embeddings(response: httpx.Response) -> list[Any]:
    """What each dialect gives for the inputs, in their order."""
    assert response.status_code == 200, response.text
    body = response.json()
    if isinstance(body, list):
        return body
    if "data" in body:
        assert [item["index"] for item in body["data"]] == list(range(len(body["data"])))
        return [item["embedding"] for item in body["data"]]
    (found,) = body["embeddings"].values()
    return list(found)


def check_vectors(response: httpx.Response, expected: Sequence[np.ndarray]) -> None:
    """Every number reads back to the very same float32."""
    found = np.array(embeddings(response), np.float32)
    assert found.tobytes() == np.array(expected, np.float32).tobytes()


def refusal(response: httpx.Response, status: int, kind: str = "invalid_request_error") -> str:
    """Check that an answer is an error in OpenAI's shape; return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    # Serve itself gives back an id that came with the request.
    assert ("x-request-id" in response.headers) != ("x-request-id" in response.request.headers)
    body = response.json()
    assert body == {
        "error": {
            "message": body["error"]["message"],
            "type": kind,
            "param": None,
            "code": status,
        }
    }
    message = body["error"]["message"]
    assert isinstance(message, str)
    assert message
    return message


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


# OpenAI


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


def test_openai_dimensions_cut_the_vector_to_unit_length_in_a_space_of_their_own(app: App):
    response = app.post(V1, input=["a", "b"], dimensions=5)

    found = np.array(embeddings(response), np.float32)
    for row, text in zip(found, "ab", strict=True):
        kept = vector(text)[:5]
        np.testing.assert_allclose(row, kept / np.linalg.norm(kept), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    cut = replace(WIDE, truncate_dim=5, dimension=5)
    assert response.headers["x-embedding-space"] == cut.fingerprint != WIDE.fingerprint


def test_all_dimensions_are_the_space_itself(app: App):
    response = app.post(V1, input="a", dimensions=16)

    check_vectors(response, [vector("a")])
    assert response.headers["x-embedding-space"] == WIDE.fingerprint


@pytest.mark.parametrize("dimensions", [0, -1, 17, "4", 4.0, True, [4]])
def test_dimensions_that_do_not_fit_are_refused(app: App, dimensions: object):
    assert "dimensions: expected " in refusal(app.post(V1, input="a", dimensions=dimensions), 400)


def test_dimensions_are_refused_where_a_corpus_is_served():
    app = App(corpus="out/")

    message = refusal(app.post(V1, input="a", dimensions=8), 400)

    assert "the corpus' own, found 8" in message
    assert app.post(V1, input="a", dimensions=16).status_code == 200


def test_a_zero_vector_of_the_first_dimensions_is_refused_not_divided_by_zero(
    monkeypatch: pytest.MonkeyPatch,
):
    app = App()

    def ends_only(tokenized: Tokenized, *_: object, **__: object) -> EncodedVectors:
        return EncodedVectors(np.eye(16, dtype=np.float32)[[15] * len(tokenized)], 1)

    monkeypatch.setattr(app.encoder, "encode_tokenized", ends_only)
    assert "all zero" in refusal(app.post(V1, input="a", dimensions=4), 400)


def test_a_model_that_is_not_served_is_404_and_told_what_is(app: App):
    message = refusal(app.post(V1, input="a", model="text-embedding-3-small"), 404)

    assert "'text-embedding-3-small'" in message
    assert f"{NAME}, {NAME}-query, {NAME}-document" in message


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


def test_every_served_name_is_answered_by_its_own_name():
    app = App(served_model_name=["a", "b"])

    assert app.post(V1, input="x").json()["model"] == "a"
    assert app.post(V1, input="x", model="b").json()["model"] == "b"
    assert app.post(V1, input="x", model="b-document").json()["model"] == "b-document"
    refusal(app.post(V1, input="x", model=NAME), 404)


def test_a_served_name_that_ends_like_a_role_is_taken_as_it_is():
    app = App(served_model_name="our-document")

    assert app.post(V1, input="x", model="our-document").headers["x-embedding-role"] == "query"
    refusal(app.post(V1, input="x", model="our"), 404)


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


def test_openai_refuses_what_is_too_long_where_the_client_wants_that(app: App):
    message = refusal(app.post(V1, input=["short", NINE], truncate=False), 400)

    assert "at most 8 tokens, found longer ones at [1]" in message
    assert app.post(V1, input=["short"], truncate=False).status_code == 200


def test_every_success_carries_its_receipts(app: App):
    for path, field in DIALECTS:
        headers = app.post(path, **{field: ["a"]}).headers
        assert headers["content-type"] == "application/json"
        assert headers["x-embedding-role"] == "query"
        assert headers["x-embedding-space"] == WIDE.fingerprint
        assert headers["x-truncated-count"] == "0"
        assert "x-truncated-inputs" not in headers
        for stage in ("tokenize", "queue", "forward"):
            assert float(headers[f"x-{stage}-ms"]) >= 0


def test_fields_of_openai_that_change_nothing_are_taken(app: App):
    check_vectors(app.post(V1, input="a", user="somebody"), [vector("a")])


def test_a_large_answer_is_as_right_as_a_small_one():
    app, texts = App(max_inputs=5000), [f"text {n}" for n in range(5000)]

    response = app.post(V1, input=texts)

    expected = WideEncoder().encode(texts, QUERY).vectors
    check_vectors(response, list(expected))


# Cohere


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


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_cohere_refuses_quantised_types_and_says_why(app: App, kind: str):
    message = refusal(app.post(V2, texts=["a"], embedding_types=["float", kind]), 400)

    assert f"{kind} needs a calibration that the embedding space does not hold" in message


@pytest.mark.parametrize("kind", ["binary", "ubinary"])
def test_cohere_packs_bits_only_of_whole_bytes(app: App, kind: str):
    message = refusal(app.post(V2, texts=["a"], embedding_types=[kind], output_dimension=12), 400)
    assert "multiple of 8, found 12" in message

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

    for where, kept in ((None, NINE), ("END", NINE), ("START", last_eight)):
        fields = {"truncate": where} if where else {}
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


# text-embeddings-inference


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


def test_tei_normalize_may_only_be_as_the_space_has_it(app: App):
    check_vectors(app.post(TEI, inputs="a", normalize=True), [vector("a")])
    message = refusal(app.post(TEI, inputs="a", normalize=False), 400)
    assert "normalize: expected true, which this space has, found false" in message


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, NINE),
        ({"truncate": True}, NINE),
        ({"truncate": None, "truncation_direction": "right"}, NINE),
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

    assert info["model_id"] == "fake"
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


# Models, health, docs


def test_models_are_listed_with_their_roles(app: App):
    body = app.get("/v1/models").json()

    assert body["object"] == "list"
    assert {item["id"]: item["role"] for item in body["data"]} == {
        NAME: "query",
        f"{NAME}-query": "query",
        f"{NAME}-document": "document",
    }
    for item in body["data"]:
        assert item["object"] == "model"
        assert (item["max_model_len"], item["dimensions"]) == (8, 16)
        assert item["embedding_space"] == WIDE.fingerprint
        assert app.get(f"/v1/models/{item['id']}").json() == item


def test_a_model_that_is_not_there_is_404(app: App):
    assert "'org/other'" in refusal(app.get("/v1/models/org/other"), 404)


def test_liveness_needs_no_forward_and_readiness_runs_one():
    app = App()
    assert app.get("/health/live").json() == {"status": "live"}
    assert app.encoder.forwards == []

    ready = app.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "embedding_space": WIDE.fingerprint}
    assert app.encoder.forwards == [1]


def test_an_endpoint_whose_forward_raises_is_live_but_not_ready_until_it_is_mended():
    app = App()

    def broken() -> None:
        raise RuntimeError("device lost")

    app.encoder.on_forward = broken
    for _ in range(2):
        message = refusal(app.get("/health/ready"), 503, "server_error")
        assert "not ready" in message
        assert "device lost" in message
    message = refusal(app.post(V1, input="a"), 500, "server_error")
    assert "fails for every text" in message
    refusal(app.get("/health/ready"), 503, "server_error")
    assert app.get("/health/live").status_code == 200

    app.encoder.on_forward = lambda: None
    assert app.get("/health/ready").status_code == 200
    assert app.post(V1, input="a").status_code == 200


def test_readiness_waits_for_no_queue():
    async def scenario() -> None:
        app = App()
        async with app.client() as client:
            with app.held_up():
                working = asyncio.create_task(client.post(V1, json={"input": "a"}))
                await app.a_forward_has_begun()
                assert (await client.get("/health/ready")).status_code == 200
            assert (await working).status_code == 200

    run(scenario())


def test_the_docs_describe_every_route_and_the_shape_of_errors(app: App):
    schema = app.get("/openapi.json").json()

    assert {"/v1/embeddings", "/v1/models", "/v2/embed", "/embed", "/", "/info"} <= set(
        schema["paths"]
    )
    assert schema["info"]["version"] == "1.2.3"
    for operations in schema["paths"].values():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert {"4XX", "5XX"} <= set(operation["responses"])
    assert app.get("/docs").status_code == 200


# What is refused


def test_an_unknown_path_and_a_wrong_method_are_told_in_the_same_shape(app: App):
    assert "/v1/nothing" in refusal(app.post("/v1/nothing"), 404)
    assert "/nothing" in refusal(app.get("/nothing"), 404)
    wrong = app.get(V1)
    assert "GET /v1/embeddings" in refusal(wrong, 405)
    assert wrong.headers["allow"] == "POST"


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


@pytest.mark.parametrize("path", [V1, V2, TEI])
def test_a_body_that_calls_itself_something_else_is_415(app: App, path: str):
    body = '{"input": "a"}'
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        message = refusal(app.post_text(path, body, content_type=media_type), 415)
        assert f"expected application/json, found '{media_type}'" in message


def test_a_content_type_may_name_its_charset(app: App):
    body = '{"input": "a"}'
    for media_type in ("application/json; charset=utf-8", "Application/JSON"):
        check_vectors(app.post_text(V1, body, content_type=media_type), [vector("a")])


def test_a_content_type_may_be_left_out(app: App):
    check_vectors(app.request("POST", V1, content=b'{"input": "a"}'), [vector("a")])


@pytest.mark.parametrize(("path", "field"), DIALECTS)
def test_an_unknown_field_is_refused_by_its_name(app: App, path: str, field: str):
    message = refusal(app.post(path, **{field: ["a"], "inptu_type": "query"}), 400)

    assert message.startswith("inptu_type: ")


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


@pytest.mark.parametrize(("path", "field"), DIALECTS)
def test_no_inputs_are_refused(app: App, path: str, field: str):
    assert "at least one input" in refusal(app.post(path, **{field: []}), 400)


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


def test_a_name_that_cannot_be_written_is_not_served(app: App):
    message = refusal(app.post_text(V1, r'{"input": "a", "model": "\ud800"}'), 404)
    assert "\\ud800" in message


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


@pytest.mark.parametrize(("path", "field"), DIALECTS)
def test_more_inputs_or_tokens_than_a_request_may_have_are_413(path: str, field: str):
    app = App(max_inputs=3, max_request_tokens=10)

    assert app.post(path, **{field: ["a b c"] * 3}).status_code == 200
    assert "at most 3 inputs, found 4" in refusal(app.post(path, **{field: ["a"] * 4}), 413)
    message = refusal(app.post(path, **{field: ["a b c", "a b c", "a b c d e"]}), 413)
    assert "at most 10 tokens in a request, found 11" in message
    assert app.metrics.rejections == [(QUERY, "too_large")] * 2
    assert app.encoder.forwards == [3]


def test_tokens_that_are_cut_off_do_not_count_against_the_limit():
    app = App(max_request_tokens=8)

    assert app.post(V1, input=NINE * 5).status_code == 200


async def in_chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def test_a_body_of_more_bytes_than_allowed_is_413_however_it_comes():
    app = App(max_body_bytes=100)

    def body(size: int) -> bytes:
        return json.dumps({"input": ""}).replace('""', f'"{"x" * (size - 13)}"').encode()

    assert len(body(100)) == 100
    assert app.post_text(V1, body(100)).status_code == 200
    for size in (101, 1_600, 1_601, 1_000_000):
        assert "at most 100 bytes" in refusal(app.post_text(V1, body(size)), 413)
        chunks = in_chunks(body(size), 64)
        json_type = {"content-type": "application/json"}
        refusal(app.request("POST", V1, content=chunks, headers=json_type), 413)
    whole = in_chunks(body(100), 7)
    assert app.request("POST", V1, content=whole, headers=json_type).status_code == 200


def test_a_body_that_comes_too_slowly_is_408():
    async def slow() -> AsyncIterator[bytes]:
        yield b'{"input": '
        await asyncio.sleep(10)
        yield b'"a"}'

    app = App(body_timeout_s=0.05)

    message = refusal(app.request("POST", V1, content=slow()), 408, "timeout_error")

    assert "within 0.05 s, found 10 bytes" in message


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic right", "right", "Bearer right x"],
)
def test_a_request_without_a_valid_key_is_401(authorization: str | None):
    app = App(api_keys=("right", "also right"))
    headers = {"authorization": authorization} if authorization is not None else {}

    for method, path in (("POST", V1), ("GET", "/v1/models"), ("GET", "/docs"), ("GET", "/nope")):
        response = app.request(method, path, headers=headers)
        message = refusal(response, 401, "authentication_error")
        assert response.headers["www-authenticate"] == "Bearer"
        assert "wrong" not in message
    assert app.encoder.forwards == []
    assert app.get("/health/live", headers=headers).status_code == 200
    assert app.get("/health/ready", headers=headers).status_code == 200


@pytest.mark.parametrize("authorization", ["Bearer right", "bearer right", "Bearer  also-right "])
def test_a_request_with_a_valid_key_is_answered(authorization: str):
    app = App(api_keys=("right", "also-right"))

    check_vectors(app.post(V1, {"authorization": authorization}, input="a"), [vector("a")])


def test_a_key_that_nobody_asked_for_does_not_matter(app: App):
    assert app.post(V1, {"authorization": "Bearer none"}, input="a").status_code == 200


def test_requests_beyond_the_queue_are_429_at_once_and_count_as_offered_load():
    async def scenario() -> None:
        app = App(max_queued_tokens=8, max_request_tokens=8)
        six = "a b c d e f"
        async with app.client() as client:
            with app.held_up():
                working = asyncio.create_task(client.post(V1, json={"input": six}))
                await app.a_forward_has_begun()
                refused = [
                    await client.post(V1, json={"input": six, "input_type": "document"}),
                    # Three inputs are at least three tokens: refused before they are tokenized.
                    await client.post(V1, json={"input": ["a b"] * 3}),
                ]
                assert app.service.load.queued_tokens == 6
            assert (await working).status_code == 200
            for response in refused:
                assert "6 tokens wait and 8 may" in refusal(response, 429, "rate_limit_error")
                assert int(response.headers["retry-after"]) >= 1
            assert app.metrics.rejections == [(DOCUMENT, "overloaded"), (QUERY, "overloaded")]
            assert app.service.load._offered > 12
            assert (await client.post(V1, json={"input": six})).status_code == 200
        assert app.encoder.forwards == [1, 1]

    run(scenario())


def test_a_request_without_vectors_in_time_is_504_and_the_next_is_answered():
    async def scenario() -> None:
        app = App(request_timeout_s=0.5)
        async with app.client() as client:
            with app.held_up():
                late = await client.post(V1, json={"input": "a"})
                behind = await client.post(V1, json={"input": "b"})
            for response in (late, behind):
                message = refusal(response, 504, "timeout_error")
                assert "within 0.5 s" in message
            assert app.metrics.rejections == [(QUERY, "timeout")] * 2
            assert app.service.load._offered == 2, "what timed out was wanted, too"
            assert app.service.load.queued_tokens == 0
            answered = await client.post(V1, json={"input": "c"})
            check_vectors(answered, [vector("c")])
        assert sum(app.encoder.forwards) == 2, "what had timed out in the queue was encoded"

    run(scenario())


def test_a_forward_that_does_not_end_makes_the_endpoint_unready():
    async def scenario() -> None:
        app = App(request_timeout_s=0.05)
        async with app.client() as client:
            with app.held_up():
                await client.post(V1, json={"input": "a"})
                await asyncio.sleep(0.02)
                message = refusal(await client.get("/health/ready"), 503, "server_error")
                assert "a forward has not ended after 0.05 s" in message

    run(scenario())


def test_a_text_that_makes_the_model_raise_is_named_and_its_neighbours_are_answered():
    async def scenario() -> None:
        app = App()
        async with app.client() as client:
            with app.held_up():
                first = asyncio.create_task(client.post(V1, json={"input": "a"}))
                await app.a_forward_has_begun()
                bad = asyncio.create_task(client.post(V1, json={"input": ["x", "poison"]}))
                good = asyncio.create_task(client.post(TEI, json={"inputs": ["y", "z"]}))
                while app.service.load.queued_tokens < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            message = refusal(await bad, 500, "server_error")
            assert "cannot embed input 1" in message
            assert "kernel" not in message
            check_vectors(await good, [vector("y"), vector("z")])
            assert (await first).status_code == 200

    run(scenario())


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
        ("-", "openai", 500),
        ("-", "cohere", 500),
        ("-", "tei", 500),
    ]


# Request ids, metrics, the log


def test_a_request_without_an_id_gets_one_of_its_own_whatever_becomes_of_it(app: App):
    made = [
        response.headers["x-request-id"]
        for response in (
            app.post(V1, input="a"),
            app.post(V1, input=[]),
            app.get("/nowhere"),
            app.get("/health/live"),
            app.get("/health/live", headers={"x-request-id": ""}),
        )
    ]
    assert len(set(made)) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in made)


def test_an_id_that_came_with_the_request_is_logged_and_left_to_serve_to_give_back(app: App):
    with logged() as lines:
        response = app.post(V1, {"x-request-id": "abc-123"}, input="a")

    assert "x-request-id" not in response.headers, "Serve would send it twice"
    assert json.loads(lines[0])["request_id"] == "abc-123"


@pytest.mark.parametrize("given", ["x" * 129, "a\tb"])
def test_an_id_of_any_kind_is_logged_in_one_line_of_bounded_length(app: App, given: str):
    with logged() as lines:
        app.post(V1, {"x-request-id": given}, input="a")

    (line,) = [line for line in lines if "/v1/embeddings" in line]
    assert "\n" not in line
    assert json.loads(line)["request_id"] == given[:128]


def test_metrics_are_told_of_every_answer():
    app = App()
    app.post(V1, input=["a b", NINE], input_type="document")
    app.post(V2, texts=["a"])
    app.post(TEI, inputs=7)
    app.get("/nowhere")

    assert app.metrics.answers == [
        ("document", "openai", 200),
        ("query", "cohere", 200),
        ("-", "-", 400),
        ("-", "-", 404),
    ]
    assert app.metrics.embeddings == [(DOCUMENT, 10, 1), (QUERY, 1, 0)]
    assert app.metrics.serializations == [DOCUMENT, QUERY]
    assert app.metrics.rejections == []


def test_a_client_that_goes_away_gets_nothing_and_is_counted_as_gone():
    async def scenario() -> None:
        app = App()
        scope = {
            "type": "http",
            "method": "POST",
            "path": V1,
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        answered: list[Any] = []

        async def gone() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            answered.append(message)

        await app.asgi(scope, gone, send)
        assert answered == []
        assert app.metrics.answers == [("-", "-", 499)]

    run(scenario())


@contextmanager
def logged() -> Iterator[list[str]]:
    """What the replica's logger writes."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("ray.serve"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_each_request_is_one_line_of_json_without_its_texts():
    app = App()
    with logged() as lines:
        app.post(V1, {"x-request-id": "one"}, input=["secret", NINE], input_type="document")
        app.post_text(V1, r'{"input": "a", "model": "\ud800"}', x_request_id="two")
        app.get("/health/ready")

    good, bad = (json.loads(line) for line in lines)
    assert "secret" not in "".join(lines)
    assert (good["request_id"], good["method"], good["path"]) == ("one", "POST", V1)
    assert (good["status"], good["dialect"], good["role"]) == (200, "openai", "document")
    assert (good["inputs"], good["tokens"], good["truncated"]) == (2, 9, 1)
    assert good["space"] == WIDE.fingerprint
    assert good["ms"] >= good["forward_ms"] >= 0
    assert (bad["request_id"], bad["status"]) == ("two", 404)
    assert bad["error"].startswith("model: ")


def test_requests_are_not_logged_where_the_operator_does_not_want_it():
    app = App(access_log=False)
    with logged() as lines:
        app.post(V1, input="a")

    assert lines == []


# The service's own life


def test_a_warm_up_measures_the_capacity_and_leaves_no_load_behind():
    async def scenario() -> None:
        app = App()
        await app.service.warm_up()
        report = app.service.load.report()
        assert report["capacity_tokens_per_s"] > 0
        assert report["offered_tokens_per_s"] == 0
        assert report["queue_wait_s"] == 0
        assert app.encoder.forwards[-3:] == [2048 // 8] * 3
        await app.service.close()

    run(scenario())


def test_a_large_body_of_wrong_elements_is_refused_as_fast_as_a_small_one(app: App):
    """Each element was an error of its own, in each branch of the union: a minute for 4 MB."""
    message = refusal(app.post(V1, input=[1.5] * 200_000), 400)
    assert message.startswith("input: expected a text")


def test_many_unknown_fields_are_one_error(app: App):
    message = refusal(app.post(V1, input="a", **{f"f{n}": 1 for n in range(50_000)}), 400)
    assert "found 50000 unknown" in message
    assert len(message) < 1000


def test_bodies_beyond_what_may_be_held_at_once_are_429():
    app = App(max_buffered_bytes=100)
    assert app.post(V1, input="a").status_code == 200
    answer = app.post(V1, input="a" * 200)
    refusal(answer, 429, "rate_limit_error")
    assert answer.headers["retry-after"] == "1"
    assert app.post(V1, input="a").status_code == 200, "its bytes were not given back"


def test_health_below_a_route_prefix_is_open_and_a_path_that_begins_like_it_is_not():
    app = App(api_keys=("secret",))
    for path, expected in (("/health/live", 200), ("/healthy", 401), ("/health-search", 401)):
        assert app.get(path).status_code == expected
