"""The service behind every dialect: limits, deadlines, `dimensions`, texts that make it raise."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from encoder.encoder import EncodedVectors
from encoder.tokenizer import Tokenized
from serving.errors import ServeError
from support.replica_app import (
    DIALECTS,
    DOCUMENT,
    NINE,
    QUERY,
    TEI,
    V1,
    WIDE,
    App,
    check_vectors,
    refusal,
    run_scenario,
    vector,
)


def test_all_dimensions_are_the_space_itself(app: App):
    response = app.post(V1, input="a", dimensions=16)

    check_vectors(response, [vector("a")])
    assert response.headers["x-embedding-space"] == WIDE.fingerprint


@pytest.mark.parametrize("dimensions", [0, -1, 17, "4", 4.0, True, [4]])
def test_dimensions_that_do_not_fit_are_refused(app: App, dimensions: object):
    assert "dimensions: expected " in refusal(app.post(V1, input="a", dimensions=dimensions), 400)
    assert app.post(V1, input="a", dimensions=1).status_code == 200


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


@pytest.mark.parametrize(("path", "field"), DIALECTS)
def test_no_inputs_are_refused(app: App, path: str, field: str):
    assert "at least one input" in refusal(app.post(path, **{field: []}), 400)


@pytest.mark.parametrize(("path", "field"), DIALECTS)
def test_more_inputs_or_tokens_than_a_request_may_have_are_413(path: str, field: str):
    app = App(max_inputs=3, max_request_tokens=10)

    assert app.post(path, **{field: ["a b c"] * 3}).status_code == 200
    assert "at most 3 inputs, found 4" in refusal(app.post(path, **{field: ["a"] * 4}), 413)
    message = refusal(app.post(path, **{field: ["a b c", "a b c", "a b c d e"]}), 413)
    assert "at most 10 tokens in a request, found 11" in message
    assert app.metrics.rejections == [(QUERY, "too_large")] * 2
    assert app.encoder.forwards == [3]


def test_a_request_that_cannot_be_through_in_time_is_413_at_once():
    app = App(request_timeout_s=2.0)
    app.service.load.encoded(100, 100, 1.0, 1)

    message = refusal(app.post(V1, input=[NINE] * 70), 413)
    assert "at most 2 s, found 560 tokens, which take about 6 s here" in message
    assert app.metrics.rejections == [(QUERY, "too_large")]
    assert not app.encoder.forwards
    assert app.post(V1, input=[NINE] * 20).status_code == 200


def test_a_rate_that_nothing_has_told_for_long_refuses_nobody():
    app = App(request_timeout_s=0.5)
    app.service.load.encoded(100, 100, 1.0, 1)

    refusal(app.post(V1, input=[NINE] * 70), 413)
    time.sleep(0.6)
    assert app.post(V1, input=[NINE] * 70).status_code == 200
    assert app.post(V1, input=[NINE] * 70).status_code == 200, "it told the rate"


def test_a_closed_service_answers_503():
    async def scenario() -> None:
        app = App()
        await app.service.close()
        async with app.client() as client:
            for texts in ("a", ["a", "b"]):
                message = refusal(await client.post(V1, json={"input": texts}), 503, "server_error")
                assert "stopping" in message

    run_scenario(scenario())


def test_tokens_that_are_cut_off_do_not_count_against_the_limit():
    app = App(max_request_tokens=8)

    assert app.post(V1, input=NINE * 5).status_code == 200


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
                assert "connection" not in response.headers, "the whole body was read"
            assert app.metrics.rejections == [(DOCUMENT, "overloaded"), (QUERY, "overloaded")]
            assert app.offered_tokens() > 12
            assert (await client.post(V1, json={"input": six})).status_code == 200
        assert app.encoder.forwards == [1, 1]

    run_scenario(scenario())


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
            assert app.offered_tokens() == 2, "what timed out was wanted, too"
            assert app.service.load.queued_tokens == 0
            answered = await client.post(V1, json={"input": "c"})
            check_vectors(answered, [vector("c")])
        assert sum(app.encoder.forwards) == 2, "what had timed out in the queue was encoded"

    run_scenario(scenario())


def test_a_model_that_does_not_answer_is_found_whatever_is_being_tokenized():
    async def scenario() -> None:
        app = App()
        await app.service.check(waits=True)
        app.encoder.on_forward = lambda: 1 / 0
        app.service.load.enter(100)
        with pytest.raises(ServeError, match="ZeroDivisionError"):
            await app.service.check(waits=True)
        await app.service.close()

    run_scenario(scenario())


def test_a_model_that_begins_to_give_other_vectors_is_not_healthy():
    async def scenario() -> None:
        app = App()
        await app.service.warm_up()
        await app.service.check(waits=True)
        app.encoder.is_broken = True
        with pytest.raises(ServeError, match="a fixed text has cosine"):
            await app.service.check(waits=True)
        async with app.client() as client:
            ready = await client.get("/health/ready")
        assert "the device or its memory is broken" in refusal(ready, 503, "server_error")
        await app.service.close()

    run_scenario(scenario())


def test_a_busy_model_is_ready_at_once_and_checked_when_its_forward_has_ended():
    async def scenario() -> None:
        app = App()
        await app.service.warm_up()
        app.encoder.forwards.clear()
        async with app.client() as client:
            with app.held_up():
                working = asyncio.create_task(client.post(V1, json={"input": "a"}))
                await app.a_forward_has_begun()
                assert (await client.get("/health/ready")).status_code == 200
                checking = asyncio.create_task(app.service.check(waits=True))
                await asyncio.sleep(0.05)
                assert not checking.done()
                app.encoder.is_broken = True
            with pytest.raises(ServeError, match="a fixed text has cosine"):
                await checking
            assert (await working).status_code == 200
        await app.service.close()

    run_scenario(scenario())


def test_a_model_that_gave_another_vector_embeds_nothing_until_it_gives_the_old_one_again():
    async def scenario() -> None:
        app = App()
        await app.service.warm_up()
        app.encoder.is_broken = True
        with pytest.raises(ServeError):
            await app.service.check(waits=True)
        async with app.client() as client:
            refused = [await client.post(V1, json={"input": "a"}) for _ in range(2)]
            not_ready = await client.get("/health/ready")
            for response in (*refused, not_ready):
                assert "nothing is embedded" in refusal(response, 503, "server_error")
            app.encoder.is_broken = False
            assert (await client.get("/health/ready")).status_code == 200
            check_vectors(await client.post(V1, json={"input": "a"}), [vector("a")])
        await app.service.close()

    run_scenario(scenario())


def test_a_check_goes_before_all_that_waits_and_after_a_failed_one_nothing_is_ready():
    async def scenario() -> None:
        app = App(max_queue_wait_s=1000)
        await app.service.warm_up()
        app.encoder.forwards.clear()
        # So many tokens a forward that each of those that wait has one of its own.
        app.encoder.max_concurrent_tokens = 1
        encode, texts = app.encoder.encode_tokenized, list[int]()
        steps = [threading.Event() for _ in range(5)]

        def one_by_one(tokenized: Tokenized, *given: object, **options: object) -> EncodedVectors:
            texts.append(int(tokenized.n_tokens[0]))
            steps[len(texts) - 1].wait(20)
            return encode(tokenized, *given, **options)

        app.encoder.encode_tokenized = one_by_one
        async with app.client() as client:
            posts = [client.post(V1, json={"input": "word " * n}) for n in (1, 2, 3)]
            working = [asyncio.create_task(post) for post in posts]
            while app.service.load.queued_tokens < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            checking = asyncio.create_task(app.service.check(waits=True))
            await asyncio.sleep(0.05)
            app.encoder.is_broken = True
            steps[0].set()
            steps[1].set()
            with pytest.raises(ServeError, match="a fixed text has cosine"):
                await checking
            # Another forward is under way, which was answer enough before.
            ready = asyncio.create_task(client.get("/health/ready"))
            await asyncio.sleep(0.05)
            assert not ready.done()
            for step in steps:
                step.set()
            assert (await ready).status_code == 503
            await asyncio.gather(*working)
        assert texts[:2] == [1, 4], "the check's text has four tokens"
        await app.service.close()

    run_scenario(scenario())


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

    run_scenario(scenario())


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

    run_scenario(scenario())


@pytest.mark.parametrize(
    ("inputs", "is_here"),
    [("a" * 200, True), (["a b"], True), ("a" * 201, False), (["a", "b"], False)],
    ids=["short", "a short one", "long", "several"],
)
def test_only_what_is_quicker_tokenized_than_handed_over_is_tokenized_on_the_event_loop(
    inputs: str | list[str], is_here: bool, monkeypatch: pytest.MonkeyPatch
):
    app = App()
    tokenize, threads = app.encoder.tokenize, []

    def noted(*arguments: object, **options: object) -> Tokenized:
        threads.append(threading.get_ident())
        return tokenize(*arguments, **options)

    monkeypatch.setattr(app.encoder, "tokenize", noted)
    assert app.post(V1, input=inputs).status_code == 200
    assert threads == [threading.get_ident()] if is_here else threading.get_ident() not in threads


@pytest.mark.parametrize("large", [["a" * 300_000], ["a" * 3_000] * 100], ids=["one", "many"])
def test_while_large_requests_are_tokenized_others_are_answered(
    large: list[str], monkeypatch: pytest.MonkeyPatch
):
    app, may_go_on = App(), threading.Event()
    tokenize, enter, entered = app.encoder.tokenize, app.service.load.enter, []
    all_wait = asyncio.Event()

    def noted(tokens: int) -> None:
        entered.append(tokens)
        enter(tokens)
        if len(entered) == 3:
            all_wait.set()

    def held_up(texts: Sequence[str], *arguments: Any, **options: Any) -> Tokenized:
        if len(texts[0]) > 1_000:
            assert may_go_on.wait(20)
        return tokenize(texts, *arguments, **options)

    monkeypatch.setattr(app.encoder, "tokenize", held_up)
    monkeypatch.setattr(app.service.load, "enter", noted)

    async def scenario() -> None:
        async with app.client() as client:
            waiting = [
                asyncio.create_task(client.post(V1, json={"input": large})) for _ in range(3)
            ]
            try:
                async with asyncio.timeout(10):
                    await all_wait.wait()
                    small = await client.post(V1, json={"input": ["a", "b"]})
            finally:
                may_go_on.set()
            check_vectors(small, [vector("a"), vector("b")])
            assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3

    run_scenario(scenario())
