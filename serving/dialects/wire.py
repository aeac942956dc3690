"""What all dialects share on the wire: checked bodies, receipts in headers, fast JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import Request, Response
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from encoder.errors import InvalidInputError
from serving.dialects.json_parts import dumped, dumped_in_parts
from serving.embed_request import Embedding
from serving.error_response import describe_problems
from serving.request_record import record_of

__all__ = [
    "Body",
    "Inputs",
    "PositiveInt",
    "TextList",
    "Texts",
    "base64_floats",
    "json_response",
    "read_body",
    "respond",
]

_INLINE_FLOATS = 2**16
"""Larger bodies are written in a thread, a part at a time: 65,536 floats take about 5 ms."""
_UNREAD_INPUTS = 2**14
"""More are refused, where they are too many, before they are looked at; fewer take 5 ms."""
_SHOWN_FIELDS = 5
_SHOWN_CHARACTERS = 60
_LISTED_INPUTS = 100
"""Indices in the header of truncated inputs; a header has room for a few thousand bytes."""

# Without fail_fast every element of a wrong list is an error of its own, in every branch of a
# union: 4 MB of them took a minute and 4 GB.
TextList = Annotated[list[StrictStr], Field(fail_fast=True)]
_Ids = Annotated[list[StrictInt], Field(fail_fast=True)]
_IdRows = Annotated[list[_Ids], Field(fail_fast=True)]
Texts = StrictStr | TextList
Inputs = StrictStr | TextList | _Ids | _IdRows
"""A text, texts, the token ids of a text, or those of several."""
PositiveInt = Annotated[StrictInt, Field(ge=1)]


class Body(BaseModel):
    """A request's body. Fields that are not known are refused: a typo must not change a role."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    inputs_field: ClassVar[str | None] = None
    """Which field has the inputs; they are counted before each of them is looked at."""

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, values: object) -> object:
        """Refuse unknown fields at once: one error for each of a million would take seconds."""
        if isinstance(values, dict):
            unknown = [name for name in values if name not in cls.model_fields]
            if unknown:
                names = (ascii(name)[1:-1] for name in unknown[:_SHOWN_FIELDS])
                shown = ", ".join(name[:_SHOWN_CHARACTERS] for name in names)
                raise ValueError(
                    f"{shown}: expected fields of this API ({', '.join(cls.model_fields)}), found "
                    f"{len(unknown)} unknown; leave them out"
                )
        return values


_BodyT = TypeVar("_BodyT", bound=BaseModel)


def read_body(content: bytes, model: type[_BodyT], check_count: Callable[[int], None]) -> _BodyT:
    """Return a request's body.

    Args:
        content: What the client sent.
        model: What it must be.
        check_count: Raises where there are too many inputs, before they are looked at: a million
            lists of one token id each took 0.4 s.

    Raises:
        InvalidInputError: It is no JSON, other JSON than the model's, or has too many inputs.
    """
    if not content:
        raise InvalidInputError("body: expected a value, found none")
    parsed = _parsed(content)
    if (count := _count(parsed, model)) > _UNREAD_INPUTS:
        check_count(count)
    try:
        # From JSON there are no attributes; what is no object is then told without our class' name.
        return model.model_validate(parsed, from_attributes=True)
    except ValidationError as error:
        raise InvalidInputError(describe_problems(error.errors(include_url=False))) from error


def _count(parsed: object, model: type[BaseModel]) -> int:
    """Return how many inputs a body has that is a list of them, whatever they are; else 1."""
    field = getattr(model, "inputs_field", None)
    inputs = parsed.get(field) if isinstance(parsed, dict) else None
    if not isinstance(inputs, list) or not inputs or isinstance(inputs[0], int | float):
        return 1
    return len(inputs)


def _parsed(content: bytes) -> Any:  # noqa: ANN401 - JSON
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    # Which also takes NaN, other encodings and lone surrogates, to name the field that has them.
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        reason = f" ({error.msg})"
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"body: expected JSON in UTF-8, found byte {content[error.start]:#04x} at position "
            f"{error.start}, where UTF-8 has none; encode the body as UTF-8"
        ) from error
    except (ValueError, RecursionError):  # thousands of digits; nested without end
        reason = ""
    raise InvalidInputError(f"body: expected JSON, found something else{reason}")


def base64_floats(vector: npt.NDArray[np.float32]) -> str:
    """Return a vector as the base64 of little-endian float32, as OpenAI sends it."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")


def json_response(content: object, headers: dict[str, str] | None = None) -> Response:
    """Return a response whose floats are the shortest that read back to the same float32."""
    return _json(dumped(content), headers)


def _json(body: bytes, headers: dict[str, str] | None) -> Response:
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
            None, lambda: _json(dumped_in_parts(content()), headers)
        )
    record_of(request.scope).embedded(embedding, time.monotonic() - started)
    return response


def _receipts(embedding: Embedding) -> dict[str, str]:
    truncated = embedding.truncated_inputs
    headers = {
        "x-embedding-role": embedding.role.value,
        "x-embedding-space": embedding.space.fingerprint,
        "x-tokenize-ms": f"{embedding.tokenize_s * 1e3:.2f}",
        "x-queue-ms": f"{embedding.queue_s * 1e3:.2f}",
        "x-forward-ms": f"{embedding.forward_s * 1e3:.2f}",
        "x-truncated-count": str(len(truncated)),
    }
    if len(truncated):
        headers["x-truncated-inputs"] = ",".join(map(str, truncated[:_LISTED_INPUTS]))
    return headers
