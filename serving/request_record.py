"""What is known of one request, for its log line and the metrics: filled on its way through."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, cast

from serving.embed_request import Embedding

__all__ = ["RequestRecord", "keep_record", "record_of"]

_SCOPE_KEY = "twofold.record"


@dataclass
class RequestRecord:
    """A request on its way.

    Attributes:
        request_id: The client's `x-request-id`, or one of ours.
        dialect: Which dialect answered; "-" for none.
        role: What is asked for; "-" where nobody has read it.
        embedding: The vectors, once they are there.
        serialize_s: Seconds of writing the body.
        error: What was answered instead.
    """

    request_id: str
    dialect: str = "-"
    role: str = "-"
    embedding: Embedding | None = None
    serialize_s: float = 0.0
    error: str | None = None

    def embedded(self, embedding: Embedding, serialize_s: float) -> None:
        """Note what was embedded."""
        self.embedding = embedding
        self.serialize_s = serialize_s


def keep_record(scope: MutableMapping[str, Any], record: RequestRecord) -> None:
    """Put a request's record into its ASGI scope."""
    scope[_SCOPE_KEY] = record


def record_of(scope: MutableMapping[str, Any]) -> RequestRecord:
    """Return the record of a request; the gate put it there."""
    return cast(RequestRecord, scope[_SCOPE_KEY])
