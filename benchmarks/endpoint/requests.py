"""The queries as HTTP requests, made once and sent as they are, and one reply read in full.

The body is what the `openai` client sends by default: one text, base64 asked for.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
from collections.abc import Sequence

import numpy as np

from benchmarks.endpoint.samples import OK
from benchmarks.endpoint.systems import MODEL_NAME, ROUTE

__all__ = ["cosine", "embed", "engine_of", "http_requests", "is_answering"]

_HOST = "127.0.0.1"
_TIMEOUT_S = 30.0


def _body(given: str | Sequence[str], **more: str) -> bytes:
    content = {"input": given, "model": MODEL_NAME, "encoding_format": "base64", **more}
    return json.dumps(content, ensure_ascii=False).encode()


def http_requests(inputs: Sequence[str | Sequence[str]], port: int, **more: str) -> list[bytes]:
    """Return a whole HTTP/1.1 request for each input.

    Args:
        inputs: Of each request: a text, or several.
        port: On 127.0.0.1.
        more: Other fields of the body.
    """
    head = (
        f"POST {ROUTE} HTTP/1.1\r\nhost: {_HOST}:{port}\r\naccept: application/json\r\n"
        "content-type: application/json\r\ncontent-length: "
    )
    bodies = (_body(given, **more) for given in inputs)
    return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]


def is_answering(port: int, query: str) -> bool:
    """Tell whether a server answers a query with success."""
    try:
        status, _ = _post(port, query)
    except (OSError, http.client.HTTPException):
        return False
    return status == OK


def embed(port: int, query: str) -> list[float]:
    """Return the vector that a server answers a query with.

    Raises:
        ValueError: It answers with something else.
    """
    status, content = _post(port, query)
    if status != OK:
        raise ValueError(f"expected 200, found {status}: {content[:300]!r}")
    vector = json.loads(content)["data"][0]["embedding"]
    if isinstance(vector, str):
        decoded: list[float] = np.frombuffer(base64.b64decode(vector), dtype="<f4").tolist()
        return decoded
    return [float(number) for number in vector]


def engine_of(port: int) -> str:
    """Return what an endpoint of ours says of its backend and precision.

    Raises:
        ValueError: It says nothing.
    """
    status, content = _exchange(port, "GET", "/info", None)
    if status != OK:
        raise ValueError(f"expected 200, found {status}: {content[:300]!r}")
    provenance = json.loads(content)["provenance"]
    return f"{provenance['backend']} {provenance['dtype']}"


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two vectors.

    Raises:
        ValueError: Their lengths differ.
    """
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other))


def _post(port: int, query: str) -> tuple[int, bytes]:
    return _exchange(port, "POST", ROUTE, _body(query))


def _exchange(port: int, method: str, route: str, body: bytes | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(_HOST, port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, route, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
