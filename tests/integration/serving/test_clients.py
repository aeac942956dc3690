"""The clients that people already have get right vectors, of the right role, from a live server.

Each client is used as its own documentation shows; what is compared is what it hands to its user.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import iscoroutinefunction

import cohere
import httpx
import numpy as np
import openai
import pytest
import tiktoken
from huggingface_hub import InferenceClient, constants
from huggingface_hub.errors import HfHubHTTPError
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

from encoder.encoder import Encoder
from encoder.space import Role
from support.endpoints import Endpoint

pytestmark = pytest.mark.integration

TEXTS = [
    "How do I reset my password?",
    "Refunds take five working days.",
    "",
    "Ünïcödé naïve façade; 東京 に 行く; 🙂",
    "A somewhat longer text, which says the same thing over and over. " * 8,
]
LONG = "far beyond what the model reads " * 200
NO_KEY = "none"


@pytest.fixture(scope="module")
def expected(direct_encoder: Encoder) -> dict[Role, np.ndarray]:
    """The vectors of `TEXTS`, float32 (N, D), by the encoder itself; the roles are told apart."""
    vectors = {role: direct_encoder.encode(TEXTS, role).vectors for role in Role}
    between = np.sum(vectors[Role.QUERY] * vectors[Role.DOCUMENT], axis=1)
    assert between.max() < 0.99, "a vector of the wrong role would pass for the right one"
    return vectors


def assert_same(found: Sequence[Sequence[float]] | np.ndarray, expected: np.ndarray) -> None:
    vectors = np.asarray(found, dtype=np.float64)
    assert vectors.shape == expected.shape
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.sum(vectors * expected, axis=1).min() >= 0.9999


class TestOpenAI:
    """`openai`, whose default encoding is base64."""

    @pytest.fixture
    def client(self, endpoint: Endpoint) -> Iterator[openai.OpenAI]:
        base_url = f"{endpoint.url}/v1"
        with openai.OpenAI(base_url=base_url, api_key=NO_KEY, max_retries=0) as client:
            yield client

    def test_its_default_is_base64_and_gives_query_vectors(self, client, endpoint, expected):
        raw = client.embeddings.with_raw_response.create(model=endpoint.model, input=TEXTS)

        on_the_wire = raw.http_response.json()["data"][0]["embedding"]
        assert isinstance(on_the_wire, str), "the client did not ask for base64"
        answer = raw.parse()
        assert [item.index for item in answer.data] == list(range(len(TEXTS)))
        assert_same([item.embedding for item in answer.data], expected[Role.QUERY])
        assert answer.model == endpoint.model
        assert raw.headers["x-embedding-role"] == "query"

    def test_float_and_base64_are_equal_bit_for_bit(self, client, endpoint):
        def ask(**more: str) -> bytes:
            answer = client.embeddings.create(model=endpoint.model, input=TEXTS[0], **more)
            found = answer.data[0].embedding
            is_text = isinstance(found, str)  # only where base64 was asked for by name
            return base64.b64decode(found) if is_text else np.array(found, "<f4").tobytes()

        def all_three() -> set[bytes]:
            return {ask(), ask(encoding_format="float"), ask(encoding_format="base64")}

        # A health check that shares a forward may change a vector's last bits: once, not always.
        assert any(len(all_three()) == 1 for _ in range(3))

    def test_one_text_may_stand_alone(self, client, endpoint, expected):
        answer = client.embeddings.create(model=endpoint.model, input=TEXTS[0])
        assert_same([answer.data[0].embedding], expected[Role.QUERY][:1])

    def test_input_type_chooses_the_role(self, client, endpoint, expected):
        answer = client.embeddings.create(
            model=endpoint.model, input=TEXTS, extra_body={"input_type": "document"}
        )
        assert_same([item.embedding for item in answer.data], expected[Role.DOCUMENT])

    def test_the_models_suffix_chooses_the_role(self, client, endpoint, expected):
        answer = client.embeddings.create(model=f"{endpoint.model}-document", input=TEXTS)
        assert_same([item.embedding for item in answer.data], expected[Role.DOCUMENT])

    def test_dimensions_keeps_the_leading_ones_at_unit_length(self, client, endpoint, expected):
        answer = client.embeddings.create(model=endpoint.model, input=TEXTS, dimensions=64)
        kept = expected[Role.QUERY][:, :64]
        assert_same(
            [item.embedding for item in answer.data],
            kept / np.linalg.norm(kept, axis=1, keepdims=True),
        )

    def test_usage_counts_the_models_tokens(self, client, endpoint, direct_encoder):
        answer = client.embeddings.create(model=endpoint.model, input=TEXTS)
        n_tokens = direct_encoder.tokenize(TEXTS, Role.QUERY).n_tokens
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == int(n_tokens.sum())

    def test_models_are_listed(self, client, endpoint):
        names = [model.id for model in client.models.list()]
        assert names == [endpoint.model, f"{endpoint.model}-query", f"{endpoint.model}-document"]
        assert client.models.retrieve(endpoint.model).id == endpoint.model

    def test_an_error_is_the_clients_own_with_our_message(self, client, endpoint):
        with pytest.raises(openai.NotFoundError, match="expected one of"):
            client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
        with pytest.raises(openai.BadRequestError, match=r"dimensions: expected 1 to 384"):
            client.embeddings.create(model=endpoint.model, input=TEXTS, dimensions=4096)


class TestLangChain:
    """`langchain-openai`, which by default posts tiktoken's ids instead of text."""

    @pytest.fixture
    def embeddings(self, endpoint: Endpoint) -> Iterator[Callable[..., OpenAIEmbeddings]]:
        with httpx.Client() as http:
            given = {"base_url": f"{endpoint.url}/v1", "api_key": NO_KEY, "max_retries": 0}
            yield partial(OpenAIEmbeddings, **given, http_client=http)

    def test_without_its_length_check_it_gets_right_vectors(self, embeddings, endpoint, expected):
        queries = embeddings(model=endpoint.model, check_embedding_ctx_length=False)
        documents = embeddings(model=f"{endpoint.model}-document", check_embedding_ctx_length=False)

        assert_same([queries.embed_query(TEXTS[0])], expected[Role.QUERY][:1])
        assert_same(documents.embed_documents(TEXTS), expected[Role.DOCUMENT])

    def test_with_its_length_check_it_is_told_which_setting_helps(
        self, embeddings, endpoint, monkeypatch
    ):
        # Its tokenizer's vocabulary is downloaded when it is first used; any ids will do.
        class Bytes:
            def encode(self, text: str, **_: object) -> list[int]:
                return list(text.encode())

            encode_ordinary = encode

        monkeypatch.setattr(tiktoken, "get_encoding", lambda _: Bytes())
        checked = embeddings(model=endpoint.model, check_embedding_ctx_length=True)

        with pytest.raises(openai.BadRequestError) as raised:
            checked.embed_documents(TEXTS[:2])

        assert "check_embedding_ctx_length=False" in str(raised.value)
        assert "found arrays of token ids" in str(raised.value)


class TestCohere:
    """`cohere`, version 2 of its API."""

    @pytest.fixture
    def client(self, endpoint: Endpoint) -> Iterator[cohere.ClientV2]:
        with httpx.Client() as http:
            yield cohere.ClientV2(api_key=NO_KEY, base_url=endpoint.url, httpx_client=http)

    @pytest.mark.parametrize(
        ("input_type", "role"),
        [("search_query", Role.QUERY), ("search_document", Role.DOCUMENT)],
    )
    def test_its_input_types_are_the_two_roles(self, client, endpoint, expected, input_type, role):
        answer = client.embed(
            model=endpoint.model, texts=TEXTS, input_type=input_type, embedding_types=["float"]
        )
        assert_same(answer.embeddings.float_, expected[role])
        assert answer.texts == TEXTS

    def test_every_type_of_one_answer_holds_the_same_vectors(self, client, endpoint, expected):
        types = ["float", "base64", "binary", "ubinary"]
        answer = client.embed(
            model=endpoint.model,
            texts=TEXTS,
            input_type="search_query",
            embedding_types=types,
            truncate="END",
        ).embeddings

        floats = np.array(answer.float_, np.float32)
        assert_same(floats, expected[Role.QUERY])
        decoded = [np.frombuffer(base64.b64decode(text), "<f4") for text in answer.base64]
        assert np.array(decoded).tobytes() == floats.tobytes()
        bits = np.packbits(floats > 0, axis=1)
        np.testing.assert_array_equal(np.array(answer.ubinary), bits)
        np.testing.assert_array_equal(np.array(answer.binary), bits.astype(int) - 128)

    def test_output_dimension_keeps_the_leading_ones(self, client, endpoint, expected):
        answer = client.embed(
            model=endpoint.model,
            texts=TEXTS,
            input_type="search_query",
            embedding_types=["float"],
            output_dimension=64,
        )
        kept = expected[Role.QUERY][:, :64]
        assert_same(answer.embeddings.float_, kept / np.linalg.norm(kept, axis=1, keepdims=True))

    @pytest.mark.parametrize("kind", ["int8", "uint8"])
    def test_calibrated_types_are_refused_with_the_reason(self, client, endpoint, kind):
        with pytest.raises(cohere.BadRequestError) as raised:
            client.embed(
                model=endpoint.model,
                texts=TEXTS,
                input_type="search_query",
                embedding_types=[kind],
            )
        assert f"{kind} needs a calibration" in str(raised.value)

    def test_truncate_none_refuses_a_long_text(self, client, endpoint):
        with pytest.raises(cohere.BadRequestError) as raised:
            client.embed(
                model=endpoint.model,
                texts=["short", LONG],
                input_type="search_query",
                embedding_types=["float"],
                truncate="NONE",
            )
        assert "found longer ones at [1]" in str(raised.value)


class TestCohereVersion1:
    """`cohere.Client`, which LangChain's and LlamaIndex's classes for Cohere use."""

    @pytest.fixture
    def client(self, endpoint: Endpoint) -> Iterator[cohere.Client]:
        with httpx.Client() as http:
            yield cohere.Client(api_key=NO_KEY, base_url=endpoint.url, httpx_client=http)

    def test_it_gets_bare_floats(self, client, endpoint, expected):
        texts = TEXTS * 20  # more than it sends at once
        answer = client.embed(model=endpoint.model, texts=texts, input_type="search_document")
        assert answer.response_type == "embeddings_floats"
        assert_same(answer.embeddings, np.tile(expected[Role.DOCUMENT], (20, 1)))
        assert answer.texts == texts

    def test_it_gets_the_types_it_asks_for(self, client, endpoint, expected):
        answer = client.embed(
            model=endpoint.model,
            texts=TEXTS,
            input_type="search_query",
            embedding_types=["float", "ubinary"],
            batching=False,  # else it joins its batches by what pydantic warns of
        )
        assert answer.response_type == "embeddings_by_type"
        floats = np.array(answer.embeddings.float_, np.float32)
        assert_same(floats, expected[Role.QUERY])
        bits = np.packbits(floats > 0, axis=1)
        np.testing.assert_array_equal(np.array(answer.embeddings.ubinary), bits)


class TestHuggingFace:
    """`huggingface_hub.InferenceClient`, given the server's bare address."""

    @pytest.fixture(autouse=True)
    def online(self, monkeypatch) -> None:
        """The tests forbid the hub (HF_HUB_OFFLINE), with which this client asks nobody at all."""
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    @pytest.fixture
    def client(self, endpoint: Endpoint) -> Iterator[InferenceClient]:
        with InferenceClient(base_url=endpoint.url, token=NO_KEY) as client:
            yield client

    def test_it_gets_query_vectors_from_a_bare_address(self, client, expected):
        assert_same(client.feature_extraction(TEXTS), expected[Role.QUERY])

    def test_it_gets_them_from_the_embed_route_too(self, endpoint, expected):
        with InferenceClient(model=f"{endpoint.url}/embed", token=NO_KEY) as client:
            assert_same(client.feature_extraction(TEXTS[0]), expected[Role.QUERY][:1])

    def test_it_finds_the_endpoint_healthy_also_where_the_address_says_the_role(self, endpoint):
        for path in ("", "/query", "/document"):
            # It asks of this provider alone, which an address of one's own need not name otherwise.
            here = {"model": endpoint.url + path, "provider": "hf-inference", "token": NO_KEY}
            with InferenceClient(**here) as client:
                assert client.health_check()

    def test_prompt_name_chooses_the_role(self, client, expected):
        found = client.feature_extraction(TEXTS, prompt_name="document", truncate=True)
        assert_same(found, expected[Role.DOCUMENT])

    def test_a_long_text_is_cut_at_the_side_it_asks_for(self, client, direct_encoder):
        found = client.feature_extraction(LONG, truncate=True, truncation_direction="left")
        tokenized = direct_encoder.tokenize([LONG], Role.QUERY, keep_end=True)
        assert tokenized.truncated.all()
        assert_same(found, direct_encoder.encode_tokenized(tokenized, Role.QUERY).vectors)

    def test_haystacks_embedders_are_told_what_to_set_and_then_served(self, endpoint, expected):
        """As HuggingFaceAPITextEmbedder and -DocumentEmbedder call it; they need a package that
        cannot stand beside pydoclint's."""

        def embed(address: str, texts: str | list[str], *, normalize: bool) -> np.ndarray:
            with InferenceClient(model=f"{endpoint.url}{address}", token=NO_KEY) as client:
                return client.feature_extraction(text=texts, truncate=True, normalize=normalize)

        assert_same(embed("", TEXTS[0], normalize=True), expected[Role.QUERY][:1])
        assert_same(embed("/document", TEXTS, normalize=True), expected[Role.DOCUMENT])
        with pytest.raises(HfHubHTTPError) as raised:
            embed("", TEXTS[0], normalize=False)  # their default
        assert "send true or null (Haystack: normalize=True)" in raised.value.response.text

    def test_truncate_false_refuses_a_long_text(self, client):
        with pytest.raises(HfHubHTTPError) as raised:
            client.feature_extraction(["short", LONG], truncate=False)
        assert raised.value.response.status_code == 400
        assert "found longer ones at [1]" in raised.value.response.text


class TestLiteLLM:
    """`litellm`, which posts to OpenAI-like servers under two prefixes."""

    @pytest.fixture
    def embedding(self, monkeypatch):
        # Without it, litellm downloads a table of prices when it is imported.
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm

        yield litellm.embedding
        # Its clients are kept for the next call; those of its async half have no connections.
        for client in litellm.in_memory_llm_clients_cache.cache_dict.values():
            if not iscoroutinefunction(client.close):
                client.close()
        litellm.in_memory_llm_clients_cache.flush_cache()

    @pytest.mark.parametrize("prefix", ["openai", "hosted_vllm"])
    def test_it_gets_query_vectors(self, embedding, endpoint, expected, prefix):
        answer = embedding(
            model=f"{prefix}/{endpoint.model}",
            input=TEXTS,
            api_base=f"{endpoint.url}/v1",
            api_key=NO_KEY,
        )
        assert_same([item["embedding"] for item in answer.data], expected[Role.QUERY])

    @pytest.mark.parametrize("prefix", ["openai", "hosted_vllm"])
    def test_it_passes_the_role_on(self, embedding, endpoint, expected, prefix):
        answer = embedding(
            model=f"{prefix}/{endpoint.model}-document",
            input=TEXTS,
            api_base=f"{endpoint.url}/v1",
            api_key=NO_KEY,
        )
        assert_same([item["embedding"] for item in answer.data], expected[Role.DOCUMENT])


class TestLlamaIndex:
    """LlamaIndex' client of text-embeddings-inference, which cannot send a role."""

    def client(self, endpoint: Endpoint, address: str = "") -> TextEmbeddingsInference:
        return TextEmbeddingsInference(
            model_name=endpoint.model, base_url=f"{endpoint.url}{address}", timeout=30
        )

    def test_it_gets_vectors_of_the_default_role(self, endpoint, expected):
        found = self.client(endpoint).get_text_embedding_batch(TEXTS)
        assert_same(found, expected[Role.QUERY])

    def test_it_gets_documents_from_the_address_that_says_so(self, endpoint, expected):
        found = self.client(endpoint, "/document").get_text_embedding_batch(TEXTS)
        assert_same(found, expected[Role.DOCUMENT])

    def test_its_address_may_end_in_a_slash(self, endpoint, expected):
        found = self.client(endpoint, "/").get_query_embedding(TEXTS[0])
        assert_same([found], expected[Role.QUERY][:1])

    def test_it_asks_one_query(self, endpoint, expected):
        found = self.client(endpoint, "/query").get_query_embedding(TEXTS[0])
        assert_same([found], expected[Role.QUERY][:1])
