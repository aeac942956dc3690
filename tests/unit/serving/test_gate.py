"""The gate: keys, media types, request ids, clients that go away."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import before_serve
from support.http_server import request, serving
from support.replica_app import (
    DIALECTS,
    TEI,
    V1,
    V2,
    App,
    check_vectors,
    refusal,
    run_scenario,
    vector,
)


@pytest.mark.parametrize("path", [V1, V2, TEI])
def test_a_body_that_calls_itself_something_else_is_415(app: App, path: str):
    body = '{"input": "a"}'
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        message = refusal(app.post_text(path, body, content_type=media_type), 415)
        assert f"expected application/json, found '{media_type}'" in message


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_body_is_415_by_the_name_of_its_encoding(app: App, encoding: str):
    body = gzip.compress(b'{"input": "a"}')
    message = refusal(app.post_text(V1, body, content_encoding=encoding), 415)
    assert f"content-encoding: expected none, found '{encoding}'" in message


def test_identity_is_no_encoding(app: App):
    answer = app.post_text(V1, '{"input": "a"}', content_encoding="Identity")
    check_vectors(answer, [vector("a")])


def test_a_content_type_may_name_its_charset(app: App):
    body = '{"input": "a"}'
    for media_type in ("application/json; charset=utf-8", "Application/JSON"):
        check_vectors(app.post_text(V1, body, content_type=media_type), [vector("a")])


def test_a_content_type_may_be_left_out(app: App):
    check_vectors(app.request("POST", V1, content=b'{"input": "a"}'), [vector("a")])


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
    for path in ("/health", "/health/live", "/health/ready", "/query/health", "/document/health"):
        assert app.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize("authorization", ["Bearer right", "bearer right", "Bearer  also-right "])
def test_a_request_with_a_valid_key_is_answered(authorization: str):
    app = App(api_keys=("right", "also-right"))

    check_vectors(app.post(V1, {"authorization": authorization}, input="a"), [vector("a")])


def test_a_key_may_end_in_a_letter_whose_last_byte_is_a_blank_in_another_encoding():
    app = App(api_keys=("voilà",))
    authorization = {"authorization": "Bearer voilà".encode()}

    assert app.request("POST", V1, json={"input": "a"}, headers=authorization).status_code == 200


def test_a_slash_behind_a_path_changes_nothing_and_sends_nobody_elsewhere(app: App):
    bodies = {V1: {"input": "a"}, V2: {"texts": ["a"]}, TEI: {"inputs": "a"}}
    for path, body in bodies.items():
        check_vectors(app.post(f"{path}/", **body), [vector("a")])
    assert app.post("/document/", inputs="a").headers["x-embedding-role"] == "document"
    assert app.get("/v1/models/").status_code == 200
    assert app.get("/health/ready/").status_code == 200
    refusal(app.get("/nope/"), 404)


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_slashes_that_are_doubled_are_one(prefix: str):
    """LlamaIndex's client posts to //embed where its base URL ends in a slash."""
    app = App(served_model_name=["s3://bucket//model", "/a/folder"])
    mounted = httpx.ASGITransport(app=app.asgi, root_path=prefix)

    async def ask(method: str, path: str, **body: object) -> httpx.Response:
        async with httpx.AsyncClient(transport=mounted, base_url="http://replica") as client:
            return await client.request(method, f"http://replica{prefix}{path}", json=body or None)

    def status(method: str, path: str, **body: object) -> int:
        return asyncio.run(ask(method, path, **body)).status_code

    for path in ("//embed", "/embed//", "///embed", "//document//embed/", "//"):
        assert status("POST", path, inputs="a") == 200, path
    assert status("POST", "//v1//embeddings", input="a") == 200
    assert status("GET", "//v1//models") == 200
    assert status("GET", "//health//ready") == 200
    for path in ("/v1/models/s3://bucket//model", "//v1//models/s3://bucket//model"):
        assert asyncio.run(ask("GET", path)).json()["id"] == "s3://bucket//model", path
    assert asyncio.run(ask("GET", "/v1/models//a/folder")).json()["id"] == "/a/folder"
    assert status("GET", "/v1/models/s3:/bucket/model") == 404


def test_below_a_route_prefix_the_bare_address_may_have_a_slash_or_none():
    app = App()
    mounted = httpx.ASGITransport(app=app.asgi, root_path="/api")

    async def post(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=mounted, base_url="http://replica") as client:
            return await client.post(path, json={"inputs": "a"})

    for path in ("/api", "/api/", "/api/embed/", "/api/document/"):
        assert asyncio.run(post(path)).status_code == 200, path


def test_a_body_that_an_upgrade_has_cost_is_missed_by_its_cause(app: App):
    headers = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c"}

    message = refusal(app.request("POST", V1, content=b"", headers=headers), 400)

    assert "found none behind an Upgrade header" in message
    assert app.post(V1, headers, input="a").status_code == 200


def test_a_key_that_nobody_asked_for_does_not_matter(app: App):
    assert app.post(V1, {"authorization": "Bearer none"}, input="a").status_code == 200


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
    response = app.post(V1, {"x-request-id": "abc-123"}, input="a")

    assert "x-request-id" not in response.headers, "Serve would send it twice"
    assert json.loads(app.access_lines()[-1])["request_id"] == "abc-123"


@pytest.mark.parametrize("given", ["x" * 129, "a\tb"])
def test_an_id_of_any_kind_is_logged_in_one_line_of_bounded_length(app: App, given: str):
    before = len(app.access_lines())
    app.post(V1, {"x-request-id": given}, input="a")

    (line,) = app.access_lines()[before:]
    assert json.loads(line)["request_id"] == given[:128]


def test_a_refusal_closes_the_connection_only_while_the_body_is_on_its_way():
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100

    app, full = App(api_keys=("right",), max_body_bytes=100), App(max_buffered_bytes=90)
    key = {"authorization": "Bearer right"}
    before_its_end = [
        (401, app.post(V1, input="a")),
        (413, app.request("POST", V1, content=endless(), headers=key)),
        (429, full.request("POST", V1, content=endless())),
    ]
    after_it = [
        (400, app.post(V1, key, input=7)),
        (413, app.post(V1, key, input="a" * 200)),
        (415, app.post(V1, key | {"content-type": "text/plain"}, input="a")),
    ]

    for status, refused in before_its_end:
        assert (refused.status_code, refused.headers.get("connection")) == (status, "close")
    for status, refused in after_it:
        assert (refused.status_code, refused.headers.get("connection")) == (status, None)
    assert "connection" not in app.get("/v1/models").headers, "401 without a body"


def test_under_overload_a_request_is_refused_unread_and_one_that_has_room_goes_through():
    async def scenario() -> None:
        app = App(max_queued_tokens=8)
        six = "a b c d e f"
        async with app.client() as client:
            with app.held_up():
                working = asyncio.create_task(client.post(V1, json={"input": six}))
                await app.a_forward_has_begun()
                app.offered_tokens()
                refused = [
                    await client.post(path, json={field: "no JSON " * 10, "oops": 1})
                    for path, field in [*DIALECTS, ("/", "inputs")]
                ]
                assert app.offered_tokens() == 4 * 10
                small = asyncio.create_task(client.post(V1, json={"input": "a"}))
                health = await client.get("/health/ready")
                unknown = await client.post("/v1/completions", json={"input": "x" * 100})
            for response in refused:
                message = refusal(response, 429, "rate_limit_error")
                assert "6 tokens wait and 8 may" in message
                assert int(response.headers["retry-after"]) >= 1
                assert "connection" not in response.headers
            assert (await working).status_code == (await small).status_code == 200
            assert (health.status_code, unknown.status_code) == (200, 404)
        assert app.metrics.answers[:4] == [("-", "-", 429)] * 4, "a route was reached"
        assert app.metrics.rejections == [("-", "overloaded")] * 4
        told = [json.loads(line) for line in app.access_lines()[:4]]
        assert [line["status"] for line in told] == [429] * 4
        assert all("6 tokens wait" in line["error"] for line in told)

    run_scenario(scenario())


def test_a_request_is_refused_unread_once_its_like_was_refused_and_until_the_queue_moves():
    async def scenario() -> None:
        app = App(max_queued_tokens=9)
        four = {"input": "a b c d"}
        async with app.client() as client:
            with app.held_up():
                working = asyncio.create_task(client.post(V1, json={"input": "a b c d e f"}))
                await app.a_forward_has_begun()
                # Fewer characters in a token than any guess has: it must be tokenized to be known.
                refused = [await client.post(V1, json=four | {"user": "u" * 30}) for _ in range(3)]
            assert (await working).status_code == 200
            assert (await client.post(V1, json=four)).status_code == 200
        for response in refused:
            assert "6 tokens wait" in refusal(response, 429, "rate_limit_error")
        assert app.metrics.answers[:3] == [("query", "openai", 429), *[("-", "-", 429)] * 2]

    run_scenario(scenario())


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

    run_scenario(scenario())


def test_refusals_that_wait_for_their_turn_hold_no_bodies():
    async def scenario() -> None:
        app = App(max_queued_tokens=8)
        gate, waiting = app.asgi.state.gate, 0
        all_wait, may_go_on = asyncio.Event(), asyncio.Event()

        class Held:
            async def wait(self) -> None:
                nonlocal waiting
                waiting += 1
                if waiting == 200:
                    all_wait.set()
                await may_go_on.wait()

        gate._refusals = Held()
        scope = {"type": "http", "method": "POST", "path": V1, "query_string": b"", "headers": []}
        statuses: list[int] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": bytes(100_000)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async with app.client() as client:
            with app.held_up():
                working = asyncio.create_task(client.post(V1, json={"input": "a b c d e f"}))
                await app.a_forward_has_begun()
                held = gate.buffered.held
                tracemalloc.start()
                before, _ = tracemalloc.get_traced_memory()
                refused = [
                    asyncio.create_task(app.asgi(dict(scope), receive, send)) for _ in range(200)
                ]
                await all_wait.wait()
                after, _ = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                assert gate.buffered.held == held
                assert after - before < 200 * 100_000 / 4
                may_go_on.set()
                await asyncio.gather(*refused)
            assert (await working).status_code == 200
        assert statuses == [429] * 200
        assert gate.buffered.held == 0

    run_scenario(scenario())


def test_an_answer_of_5xx_is_in_the_replicas_log_also_where_there_is_no_access_log(
    caplog: pytest.LogCaptureFixture,
):
    app = App(access_log=False)

    answer = app.post(V1, {"x-request-id": "find-me"}, input="poison")
    app.post(V1, input=7)

    (line,) = (record for record in caplog.records if record.name == "ray.serve")
    message = refusal(answer, 500, "server_error")
    assert line.getMessage() == f"answered 500 to request find-me: {message}"


def test_the_log_says_who_is_connected_and_apart_from_it_what_a_header_says():
    async def scenario() -> None:
        app = App()
        (middleware,) = before_serve.middlewares()
        replica = middleware.cls(app.asgi, *middleware.args, **middleware.kwargs)
        names = "x-forwarded-for: 6.6.6.6\r\n", "connection: close\r\n"
        # A real uvicorn: it believes the header where the peer is this machine, as HAProxy is.
        with before_serve.guarded_by(app.asgi.state.gate):
            async with serving(replica, HttpToolsProtocol, []) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request(*names, path=V1, body='{"input": "a"}'))
                assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                writer.close()
        line = json.loads(app.access_lines()[-1])
        assert (line["client"], line["forwarded_for"]) == ("127.0.0.1", "6.6.6.6")

    run_scenario(scenario())


def test_of_a_long_header_of_addresses_the_log_has_the_end_that_the_nearest_gateway_wrote(app: App):
    app.post(V1, {"x-forwarded-for": "6.6.6.6, " * 50 + "1.2.3.4"}, input="a")
    app.post(V1, input="a")

    forged, plain = map(json.loads, app.access_lines()[-2:])
    assert forged["forwarded_for"].endswith(", 6.6.6.6, 1.2.3.4")
    assert len(forged["forwarded_for"]) == 100
    assert "forwarded_for" not in plain
