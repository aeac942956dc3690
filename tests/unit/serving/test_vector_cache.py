"""Vectors that are kept: of just this role and these tokens, the last ones, in bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.tokenizer import Tokenized
from serving.errors import ServeError
from serving.vector_cache import VectorCache
from support.fake_encoder import FakeEncoder
from support.replica_app import DOCUMENT, NAME, QUERY, V1, V2, App, check_vectors, vector

ENTRY_BYTES = 300 + 4 * 1 + 4 * 4
"""One token, four numbers."""
PLENTY = 10**6


def tokens(texts: Sequence[str]) -> Tokenized:
    return FakeEncoder().tokenize(texts, QUERY)


def vectors(*numbers: int) -> np.ndarray:
    return np.repeat(np.array(numbers, np.float32)[:, None], 4, axis=1)


def found(cache: VectorCache, texts: Sequence[str], role=QUERY) -> list[int | None]:
    return [None if v is None else int(v[0]) for v in cache.find(tokens(texts), role)]


def test_what_was_kept_is_found_by_role_and_tokens():
    cache = VectorCache(PLENTY)
    cache.keep(tokens(["a", "b c"]), QUERY, vectors(1, 2))
    cache.keep(tokens(["a"]), DOCUMENT, vectors(3))
    assert found(cache, ["b c", "b", "a", "c b"]) == [2, None, 1, None]
    assert found(cache, ["a", "b c"], DOCUMENT) == [3, None]


def test_what_was_asked_for_longest_ago_goes_first():
    cache = VectorCache(3 * ENTRY_BYTES)
    cache.keep(tokens(["a", "b", "c"]), QUERY, vectors(1, 2, 3))
    assert found(cache, ["a"]) == [1]
    cache.keep(tokens(["d"]), QUERY, vectors(4))
    assert found(cache, ["a", "b", "c", "d"]) == [1, None, 3, 4]


@settings(deadline=None)
@given(
    rounds=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=6), max_size=30),
    entries=st.integers(0, 8),
)
def test_no_more_is_kept_than_there_is_memory_for_and_never_another_vector(rounds, entries):
    cache = VectorCache(entries * ENTRY_BYTES)
    lately: list[int] = []
    for numbers in rounds:
        texts = [f"t{n}" for n in numbers]
        assert all(v in (None, n) for v, n in zip(found(cache, texts), numbers, strict=True))
        cache.keep(tokens(texts), QUERY, vectors(*numbers))
        assert len(cache) <= entries
        lately += numbers
    last = list(dict.fromkeys(reversed(lately)))[:1]
    assert found(cache, [f"t{n}" for n in last]) == (last if entries else [None] * len(last))


def test_a_kept_vector_is_not_a_row_of_a_batch():
    cache, batch = VectorCache(PLENTY), vectors(1, 2)
    cache.keep(tokens(["a", "b"]), QUERY, batch)
    batch[:] = 7
    assert found(cache, ["a", "b"]) == [1, 2]
    (kept,) = cache.find(tokens(["a"]), QUERY)
    assert kept.base is None


def test_by_default_nothing_is_kept():
    app = App()
    for _ in range(2):
        check_vectors(app.post(V1, input="a"), [vector("a")])
    assert app.encoder.forwards == [1, 1]
    assert app.metrics.cached == [0, 0]


def test_who_asks_again_gets_the_same_without_a_forward():
    app = App(vector_cache_bytes=PLENTY)
    first = app.post(V1, input="a b")
    offered = app.offered_tokens()
    again = app.post(V1, input="a b")
    assert again.json() == first.json()
    check_vectors(again, [vector("a b")])
    assert app.encoder.forwards == [1]
    assert (again.headers["x-queue-ms"], again.headers["x-forward-ms"]) == ("0.00", "0.00")
    assert (offered, app.offered_tokens()) == (2, 0), "it asks for no replica"
    assert app.metrics.embeddings == [(QUERY, 2, 0), (QUERY, 0, 0)]
    assert app.metrics.cached == [0, 1]


def test_of_several_inputs_only_new_ones_are_encoded_and_all_come_in_order():
    app = App(vector_cache_bytes=PLENTY)
    app.post(V1, input=["b", "d e"])
    long = "x " * 20
    response = app.post(V1, input=["a", "b", long, "d e", "a"])
    check_vectors(response, [vector(text) for text in ("a", "b", long, "d e", "a")])
    data = response.json()["data"]
    assert [item["n_tokens"] for item in data] == [1, 1, 8, 2, 1]
    assert [item["truncated"] for item in data] == [False, False, True, False, False]
    assert response.json()["usage"]["total_tokens"] == 13
    assert app.encoder.forwards == [2, 3]


def test_neither_the_other_role_nor_the_other_end_of_a_text_is_taken_for_it():
    app = App(vector_cache_bytes=PLENTY)
    text = "a b c d e f g h i j"
    check_vectors(app.post(V1, input=text), [vector(text)])
    check_vectors(app.post(V1, input=text, input_type="document"), [vector(text, DOCUMENT)])
    start = app.post(V1, input=text, truncate="START")
    check_vectors(start, [vector("c d e f g h i j")])
    assert app.encoder.forwards == [1, 1, 1]


def test_every_dialect_and_dimension_finds_the_same():
    app = App(vector_cache_bytes=PLENTY)
    app.post(V1, input="a")
    short = app.post(V1, input="a", dimensions=8)
    other = app.post(
        V2, model=NAME, texts=["a"], input_type="search_query", embedding_types=["float"]
    )
    assert short.status_code == other.status_code == 200
    assert len(short.json()["data"][0]["embedding"]) == 8
    np.testing.assert_allclose(other.json()["embeddings"]["float"][0], vector("a"), rtol=1e-6)
    assert app.encoder.forwards == [1]


def test_a_device_that_breaks_leaves_nothing_that_is_kept():
    async def scenario() -> None:
        app = App(vector_cache_bytes=PLENTY)
        await app.service.warm_up()
        async with app.client() as client:
            await client.post(V1, json={"input": "a"})
            app.encoder.is_broken = True
            await client.post(V1, json={"input": "b"})
            with pytest.raises(ServeError, match="has cosine -1"):
                await app.service.check(waits=True)
            app.encoder.is_broken = False
            await app.service.check(waits=True)
            done = len(app.encoder.forwards)
            for text in ("a", "b"):
                response = await client.post(V1, json={"input": text})
                check_vectors(response, [vector(text)])
            assert len(app.encoder.forwards) == done + 2

    asyncio.run(scenario())
