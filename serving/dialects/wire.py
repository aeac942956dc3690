"""What all dialects share on the wire: checked bodies, receipts in headers, fast JSON."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from serving.embedding import Embedding
from serving.request_record import record_of

__all__ = ["Body", "Inputs", "PositiveInt", "Texts", "base64_floats", "json_response", "respond"]

_INLINE_FLOATS = 2**16
"""Larger bodies are written in a thread: 65,536 floats take about 5 ms."""
_LISTED_INPUTS = 100
"""Indices in the header of truncated inputs; a header has room for a few thousand bytes."""

Texts = StrictStr | list[StrictStr]
Inputs = StrictStr | list[StrictStr] | list[StrictInt] | list[list[StrictInt]]
"""A text, texts, the token ids of a text, or those of several."""
PositiveInt = Annotated[StrictInt, Field(ge=1)]


class Body(BaseModel):
    """A request's body. Fields that are not known are refused: a typo must not change a role."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def base64_floats(vector: npt.NDArray[np.float32]) -> str:
    """Return a vector as the base64 of little-endian float32, as OpenAI sends it."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")


def json_response(content: object, headers: dict[str, str] | None = None) -> Response:
    """Return a response whose floats are the shortest that read back to the same float32."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", headers=headers)


async def respond(
    request: Request, embedding: Embedding, content: Callable[[], dict[str, Any] | list[Any]]
) -> Response:
    """Return the response of a dialect: its body, and the receipts in headers.

    Args:
        request: Whose record is completed.
        embedding: What was embedded.
        content: Makes the body, of plain types and NumPy arrays.
    """
    started = time.monotonic()
    headers = _receipts(embedding)
    if embedding.vectors.size <= _INLINE_FLOATS:
        response = json_response(content(), headers)
    else:
        response = await asyncio.get_running_loop().run_in_executor(
            None, lambda: json_response(content(), headers)
        )
    record_of(request.scope).embedded(embedding, time.monotonic() - started)
    return response


def _receipts(embedding: Embedding) -> dict[str, str]:
    truncated = np.flatnonzero(embedding.truncated)
    headers = {
        "x-embedding-role": embedding.role.value,
        "x-embedding-space": embedding.space.fingerprint,
        "x-tokenize-ms": f"{embedding.tokenize_s * 1e3:.2f}",
        "x-queue-ms": f"{embedding.queue_s * 1e3:.2f}",
        "x-forward-ms": f"{embedding.forward_s * 1e3:.2f}",
        "x-truncated-count": str(len(truncated)),
    }
    if len(truncated):
        headers["x-truncated-inputs"] = ",".join(map(str, truncated[:_LISTED_INPUTS].tolist()))
    return headers
